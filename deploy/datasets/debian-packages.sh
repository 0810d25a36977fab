#!/bin/sh
# Turns this machine's Debian package index into JSON Lines for `anello import`: some 60,000 records of
# about 1 KiB. Needs a Debian or one of its kin, with awk and iconv, which are always there.
#
#     deploy/datasets/debian-packages.sh > packages.jsonl
#     anello import packages.jsonl
#     anello import --check packages.jsonl
#     anello get bash/5.2.15-2+b8/amd64
#
# A record's key is Package/Version/Architecture, its value the index's own text. Where the index has
# the same three twice (the same package from two archives), the second one's key ends in #2, and so
# on, so that every key is there once.
#
# With a file as argument, reads that (in the format of `apt-cache dumpavail`) instead of the index.

set -eu

index() {
    if [ $# -gt 0 ]; then
        cat -- "$1"
    elif command -v apt-cache > /dev/null; then
        apt-cache dumpavail
    else
        echo "debian-packages.sh: there is no apt-cache here; give a file of package records" >&2
        return 1
    fi
}

# JSON is UTF-8; what is not is left out.
index "$@" | iconv -c -f UTF-8 -t UTF-8 | LC_ALL=C awk '
    BEGIN {
        RS = ""
        FS = "\n"
        for (code = 1; code < 32; code++)
            escape[sprintf("%c", code)] = sprintf("\\u%04x", code)
    }

    function json(text,    escaped, at) {
        gsub(/\\/, "&&", text)
        gsub(/"/, "\\\"", text)
        gsub(/\n/, "\\n", text)
        gsub(/\t/, "\\t", text)
        escaped = ""
        while (at = match(text, /[\001-\037]/)) {
            escaped = escaped substr(text, 1, at - 1) escape[substr(text, at, 1)]
            text = substr(text, at + 1)
        }
        return "\"" escaped text "\""
    }

    {
        package = version = architecture = ""
        for (line = 1; line <= NF; line++) {
            if ($line ~ /^Package: /) package = substr($line, 10)
            else if ($line ~ /^Version: /) version = substr($line, 10)
            else if ($line ~ /^Architecture: /) architecture = substr($line, 15)
        }
        if (package == "") next
        key = package "/" version "/" architecture
        if (++seen[key] > 1) key = key "#" seen[key]
        printf "{\"key\":%s,\"value\":%s}\n", json(key), json($0 "\n")
    }
'
