#!/bin/sh
# Makes kernels.wasm of kernels.c:  web/wasm/build.sh [OUT]   (Debian: apt-get install clang lld)
set -e
here=$(dirname "$0")
clang --target=wasm32 -nostdlib -ffreestanding -O3 -msimd128 \
  -Wall -Wextra -Werror -Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=8192 \
  -o "${1:-$here/kernels.wasm}" "$here/kernels.c"
