#!/usr/bin/env bash
# Puts back what apply.sh changed, from its journal, the last change first.
#
#   revert.sh [--state DIR] [--force | --forget]
#
# Each value goes back to exactly what it was before, if it still is what we wrote. What somebody else
# has changed since is left alone and named; the journal keeps it:
#
#   --force      put the old value there all the same
#   --forget     leave it as it is now, and strike it off the journal
#
# A journal of an earlier boot: what was set at run time went with the reboot and is not touched; only
# irqbalance's ban list, a file, is put back. The process that apply.sh left to hold /dev/cpu_dma_latency
# is ended, known by its pid and its start time. Safe to run at any time, also after apply.sh was killed.
#
#   --state DIR   where the journal is (default /var/lib/tickwire/tuning)
#
# Exit code: 0 all is back, or there was nothing to do; 2 refused, nothing was changed; 3 all is back but
# for values that somebody changed since; 4 something could not be put back (run it again once the cause
# is gone, for instance a cgroup that a running engine still lives in).
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/journal.sh
. "$here/lib/journal.sh"
# shellcheck source-path=SCRIPTDIR source=lib/kinds.sh
. "$here/lib/kinds.sh"
# shellcheck source-path=SCRIPTDIR source=lib/undo.sh
. "$here/lib/undo.sh"

state_dir="$ROOT/var/lib/tickwire/tuning"
mode=keep
while [ $# -gt 0 ]; do
  case "$1" in
    --state)
      [ $# -ge 2 ] || refuse "$1 needs a value; try --help"
      state_dir="$2"
      shift
      ;;
    --force | --forget)
      [ "$mode" = keep ] || refuse "--force and --forget say opposite things"
      mode="${1#--}"
      ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) refuse "unknown argument ${1@Q}; try --help" ;;
  esac
  shift
done

if [ -z "$ROOT" ] && [ "$(id -u)" -ne 0 ]; then refuse "not root"; fi
if [ ! -e "$state_dir/journal" ]; then
  say "# nothing to put back: no journal in $state_dir"
  exit 0
fi
read_boot_id
journal_lock "$state_dir"
journal_load "$state_dir"
if [ -n "$JOURNAL_BOOT" ] && [ "$JOURNAL_BOOT" != "$BOOT_ID" ]; then
  say "# the journal is of an earlier boot: values set at run time are gone, and are not touched"
fi
# The way back is not interrupted.
trap '' INT TERM HUP PIPE
if [ -n "$JOURNAL_BOOT" ]; then journal_open || refuse "cannot write the journal in $state_dir"; fi
undo_from 0 "$mode"
if [ "$STUCK" -gt 0 ]; then exit "$EXIT_STUCK"; fi
if [ "$CHANGED" -gt 0 ]; then
  warn "$CHANGED values were changed by somebody else: --force puts the old ones back, --forget leaves them"
  exit "$EXIT_CHANGED"
fi
say "# done: everything is as it was"
