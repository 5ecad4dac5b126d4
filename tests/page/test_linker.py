"""Modules joined into one script, and bytes as its text."""

import subprocess

import numpy as np
import pytest
from page_samples import needs_node

from benchmarks.page.node import NODE, carried
from cvae_jax.errors import ConfigError
from cvae_jax.page import dense
from cvae_jax.page.linker import in_html, link


def linked(modules, given=None):
    return link("main.js", lambda path: modules[str(path)], given)


MODULES = {
    "main.js": """
import { f, g as other, LATER } from "./a/f.js";
import * as values from "./a/b/values.js";
import {
  carried,
  K,
} from "./carried.js";

/** A comment
 * that goes. */
const local = 1; // goes
console.log([f(2), other, LATER, values.K, K, carried, new values.C().x, local, again()].join());
import { again } from "./a/again.js";
""",
    "a/f.js": """
import { K } from "./b/values.js";
// goes
export const f = (x) => x * K;
export function* g() {}
export const LATER = `a "text" // of one line`;
""",
    "a/b/values.js": "export const K = 21;\nexport class C { x = `</script>`.length; }\n",
    "a/again.js": 'export { K as again, K } from "./more.js";\n',
    "a/more.js": "const local = 2;\nexport async function K() { return local; }\n",
}


def test_order_names_and_comments():
    script = linked(MODULES, {"carried.js": {"carried": "</script>", "K": 5}})
    assert "goes" not in script
    assert "// of one line" in script
    assert "import" not in script
    assert script == linked(MODULES, {"carried.js": {"carried": "</script>", "K": 5}})
    assert script.index("const module0") < script.index("const module1")


@needs_node
def test_the_script_does_what_the_modules_do():
    script = in_html(linked(MODULES, {"carried.js": {"carried": "</script>", "K": 5}}))
    assert "</script" not in script
    done = subprocess.run([NODE, "-e", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, generator, *rest = done.stdout.strip().split(",")
    assert first == "42"
    assert generator == "function* g() {}"
    text, *rest = rest
    assert text == 'a "text" // of one line'
    assert rest[:5] == ["21", "5", "</script>", "9", "1"]


@pytest.mark.parametrize(
    ("modules", "fault"),
    [
        ({"main.js": 'import { a } from "./b.js";', "b.js": 'import { c } from "./main.js";'},
         "modules that import each other: main.js -> b.js -> main.js"),
        ({"main.js": "export default 1;"}, "cannot join 'export default 1;'"),
        ({"main.js": "export let a = 1;"}, "cannot join"),
        ({"main.js": 'import a from "./b.js";'}, "cannot join"),
        ({"main.js": 'import { a } from "three";'}, "cannot join"),
        ({"main.js": 'const a = await import("./b.js");'}, "cannot join"),
        ({"main.js": "console.log(import.meta.url);"}, "cannot join"),
        ({"main.js": 'import { a } from "../b.js";'}, "which is outside"),
        ({"main.js": "const a = `two\nlines`;"}, "over several lines"),
    ],
)  # fmt: skip
def test_what_it_cannot_join_it_refuses(modules, fault):
    with pytest.raises(ConfigError, match=fault.replace("(", "\\(")):
        linked(modules)


def test_what_html_takes_for_something_else():
    with pytest.raises(ConfigError, match="<!--"):
        in_html("const a = '<!--';")
    assert in_html("'</SCRIPT>'") == "'<\\/SCRIPT>'"


def test_bytes_as_text():
    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 12, 13, 14, 1000):
        data = rng.bytes(size)
        text = dense.to_text(data)
        assert set(text) <= set(dense.ALPHABET)
        assert not set(text) & set('<"\\')
        assert carried(f'{{"model": [{size}, "{text}"]}}', "model") == data
    assert len(dense.ALPHABET) == 91
    assert len(dense.to_text(bytes(13000))) == 16000
