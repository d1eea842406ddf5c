#!/bin/sh
# as_ordinary_user.sh none|device PROGRAM [ARGUMENTS]: runs a test program as a user without any privilege. "none": one who may have a
# userfaultfd for user-mode faults at most, which everybody may; "device": one whom the machine's owner lets open /dev/userfaultfd
# (where it is ours alone, in a mount namespace of our own). Started by an ordinary user it runs the program as it is.
# 77: this machine cannot show it, and a line says why.
set -eu
grant=$1
program=$2
shift 2
skip() { echo "[  SKIPPED ] $*"; exit 77; }
[ "$(id -u)" -eq 0 ] || { [ "$grant" = none ] || skip "only root can grant the device"; exec "$program" "$@"; }

# Where that user can reach it, whatever the permissions of the build's folders.
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
chmod 755 "$place"
cp "$program" "$place/program"
mkdir -m 777 "$place/tmp"
ordinary="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=-all --bounding-set=-all"
case $grant in
  none) TEST_TMPDIR="$place/tmp" TMPDIR="$place/tmp" $ordinary "$place/program" "$@" ;;
  device)
    [ -c /dev/userfaultfd ] || skip "this kernel has no /dev/userfaultfd (Linux 6.1)"
    mknod -m 666 "$place/device" c $(stat -c '0x%t 0x%T' /dev/userfaultfd) || skip "no device node can be made here"
    unshare --mount true || skip "no mount namespace can be had here"
    TEST_TMPDIR="$place/tmp" TMPDIR="$place/tmp" unshare --mount --propagation private sh -c \
      'mount --bind "$0" /dev/userfaultfd && shift && exec "$@"' "$place/device" - $ordinary "$place/program" "$@"
    ;;
esac
