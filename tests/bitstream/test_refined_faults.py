"""What is wrong with a refined chunk is said with its place, and as what it is."""

import dataclasses
import io

import numpy as np
import pytest
from archive_samples import archive_of_chunks
from context_samples import archive_of, decoder_of, file_model, part

from cvae_jax.bitstream import Archive, Budget, Reader, Writer, budget, records
from cvae_jax.bitstream.verify import verify_archive
from cvae_jax.errors import CostError, DataError, FormatError, ModelMismatchError, VersionError

MODEL = file_model()
DECODER = decoder_of(MODEL)
PARTS = [part(7), part(5, 4, 1), part(3, 63, 2), part(4, 0, 3)]
DATA = archive_of(PARTS)


def opened(data):
    return Archive(io.BytesIO(data), DECODER)


def test_a_fault_says_once_in_which_chunk_it_is():
    chunks = [Reader(io.BytesIO(DATA)).chunk(k) for k in range(4)]
    longer = chunks[1].refinement._replace(stream=chunks[1].refinement.stream + b"1234")
    for fields in ({"refinement": longer}, {"pixel_crc": 0}, {"symbol_crc": 0}, {"stream": b"1"}):
        wrong = dataclasses.replace(chunks[1], **fields)
        data = archive_of_chunks([chunks[0], wrong, *chunks[2:]], MODEL.header)
        for read in (lambda a: a.read(), lambda a: verify_archive(a.reader, DECODER)):
            with pytest.raises(FormatError) as refused:
                read(opened(data))
            assert str(refused.value).startswith("chunk of images 7 to 11: ")
            assert str(refused.value).count("chunk") == 1


def test_what_costs_too_much_says_where_and_is_no_damage():
    chunk, little = Reader(io.BytesIO(DATA)).chunk(0), Budget(1e-9)
    meter = budget.Meter(budget.DISTRIBUTIONS, little, 1)
    for costly in (
        lambda: list(DECODER.refined([(chunk, PARTS[0].levels)], meter)),
        lambda: chunk.symbols(MODEL.tables, little),
    ):
        with pytest.raises(CostError, match=r"^chunk of images 0 to 6: reading"):
            costly()


def test_a_newer_chunk_is_no_damage():
    content = bytearray(DATA)
    entry = Reader(io.BytesIO(DATA)).entries[1]
    body = content[entry.offset + 8 : entry.offset + entry.length - 4]
    body[14] |= 32
    content[entry.offset : entry.offset + entry.length] = records.pack_section(b"CHNK", body)
    with pytest.raises(VersionError, match=r"images 7 to 11.*update"):
        opened(bytes(content)).read()


def test_what_readers_refuse_is_not_written():
    chunk, writer = PARTS[0], Writer(io.BytesIO(), MODEL.header)
    none = chunk._replace(symbols=chunk.symbols[:0], levels=chunk.levels[:0])
    for fields, wrong, words in (
        (chunk, {"max_error": 64}, "largest error of 64"),
        (chunk, {"max_error": -1}, "largest error of -1"),
        (none, {"modes": np.full(7, 7, np.uint8)}, "from 0 to 2"),
        (none, {"modes": np.zeros(7, np.int64)}, "uint8"),
        (none, {"modes": np.zeros(0, np.uint8)}, "1 to 8192"),
        (none, {"modes": np.zeros(9000, np.uint8)}, "1 to 8192"),
        (none, {}, "symbols of 0 images, but 3"),
        (chunk, {"modes": np.zeros(7, np.uint8)}, "symbols of 3 images, but 0"),
    ):
        refinement = chunk.refinement._replace(**wrong)
        with pytest.raises(DataError, match=words):
            writer.add_refined(*fields._replace(refinement=refinement)[:-1])
    other = chunk.refinement._replace(model=bytes(16))
    writer.add_refined(*chunk[:-1])
    with pytest.raises(ModelMismatchError, match="different context models"):
        writer.add_refined(*chunk._replace(refinement=other)[:-1])
