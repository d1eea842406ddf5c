#!/bin/sh
# under.sh PROGRAM ARGUMENTS...: runs a program as the suite's mode has it: under `pnode run`, whose options are in the environment,
# or, where SUITE_PNODE names no command, plainly. Each process leaves its statistics in a file of its own; its forked children do too,
# where SUITE_CHILDREN says so.
[ -n "$SUITE_PNODE" ] || exec "$@"
name=${SUITE_CHILDREN:+%p}
exec env PNODE_STATS="$SUITE_STATS/${name:-$$}.json" "$SUITE_PNODE" run -- "$@"
