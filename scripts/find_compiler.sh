#!/bin/sh
# Says what is missing, if anything, to build a Python package from C++. $1 is the Python that it
# is for. The compiler is run, not just looked up: systems ship stand-ins that only say how to
# install one.

python=$1
include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')

builds() {
    for compiler in $CXX c++ g++ clang++; do
        echo "$1" | "$compiler" -x c++ -I "$include" -fsyntax-only - >/dev/null 2>&1 && return
    done
    return 1
}

# With an include: a compiler may be there without its library.
if ! builds '#include <cstring>'; then
    echo "Oban's package erlpack is built when it is installed, which needs a C++ compiler, and none" \
        "was found: please install one (on Debian and Ubuntu the package g++, on macOS with" \
        "'xcode-select --install') and try again." >&2
    exit 1
elif ! builds '#include <Python.h>'; then
    echo "Oban's package erlpack is built when it is installed, which needs the headers of" \
        "$("$python" -V), and there are none in $include: please install them (on Debian and Ubuntu" \
        "the package python3-dev) and try again." >&2
    exit 1
fi
