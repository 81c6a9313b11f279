#!/bin/sh
# An interpreter that starts slowly: not while the file HOLD is in the folder for temporary files.
while [ -e "${TMPDIR:-/tmp}/$HOLD" ]; do sleep 0.1; done
exec "$PYTHON" "$@"
