"""Downloads through TFDS that finish in bounded time.

:func:`main` is a child process that fetches MNIST's files (:mod:`cvae_jax.data.mnist` starts
it).  Only a process can be stopped for certain: TFDS's downloader retries for minutes, its threads
keep an interpreter alive, and no timeout applies to name resolution.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn
from unittest import mock
from urllib.parse import urlsplit

from cvae_jax.errors import InstallError, needs

# Limits in seconds.
ANSWER_SECONDS = 8  # until the server's first answer, name resolution and proxies included
READ_SECONDS = 15  # of silence


def main() -> None:
    """Does the job on stdin: {"folder": path, "files": {url: [bytes, sha256]}, "limits"}.

    Prints {url: path}, or, with exit status 1, the reason for the failure.
    """
    try:
        with needs("train", "fetching it"):
            import requests
            import tensorflow_datasets as tfds
            from tensorflow_datasets.core.download.checksums import UrlInfo
            from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
    except InstallError as error:
        _give_up(str(error))

    job = json.load(sys.stdin)
    answer_seconds, read_seconds = job["limits"]
    first = next(iter(job["files"]))
    host = urlsplit(first).netloc
    silence = f"{host} did not answer within {answer_seconds} seconds"
    patience = threading.Timer(answer_seconds, _give_up, [silence])
    patience.start()
    try:
        with bounded_requests(answer_seconds, read_seconds):
            with requests.get(first, stream=True) as response:
                patience.cancel()
                response.raise_for_status()
            manager = tfds.download.DownloadManager(
                download_dir=job["folder"],
                url_infos={
                    url: UrlInfo(size, sha256, os.path.basename(url))
                    for url, (size, sha256) in job["files"].items()
                },
                force_checksums_validation=True,
            )
            paths = manager.download({url: url for url in job["files"]})
    except requests.HTTPError as error:
        _give_up(f"{host} answered {error.response.status_code}")
    except requests.exceptions.ChunkedEncodingError:
        _give_up(f"{host} broke off in the middle of a file")
    except requests.RequestException as error:
        kind = "stopped answering" if "timed out" in str(error).lower() else "is not reachable"
        _give_up(f"{host} {kind}")
    except NonMatchingChecksumError:
        _give_up(f"a file from {host} has the wrong checksum")
    except Exception as error:  # whatever it is, the parent expects one line
        _give_up(f"{host}: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    print(json.dumps({url: str(path) for url, path in paths.items()}), flush=True)


@contextlib.contextmanager
def bounded_requests(
    answer_seconds: float = ANSWER_SECONDS, read_seconds: float = READ_SECONDS
) -> Iterator[None]:
    """Makes ``requests``, and with it TFDS, give up on a silent server.

    TFDS passes no timeout and retries for minutes, and neither can be configured.

    Args:
      answer_seconds: until a connection is made.
      read_seconds: of silence on it.
    """
    from requests.adapters import HTTPAdapter
    from tensorflow_datasets.core.download import downloader

    send = HTTPAdapter.send
    limits = (answer_seconds, read_seconds)

    def bounded(self, request, stream=False, timeout=None, **kwargs):
        return send(self, request, stream=stream, timeout=timeout or limits, **kwargs)

    with (
        mock.patch.object(HTTPAdapter, "send", bounded),
        mock.patch.object(downloader, "MAX_RETRIES", 1),
    ):
        yield


def _give_up(reason: str) -> NoReturn:
    print(reason, flush=True)
    os._exit(1)  # the downloader's threads would delay a normal exit
