#!/usr/bin/env bash
# Sets this host up for the engine, or shows what that would change.
#
#   apply.sh [--env FILE] [--state DIR] [--apply]
#
# Without --apply it only prints: each write as the shell command that would do it, and what is as
# wanted, not here or cannot be moved. It needs no privilege for that and writes nothing.
#
# With --apply, as root: each old value goes to the journal and on disk, then the new one is written,
# read back and checked for its effect. At the first failure everything written is put back. Running it
# twice does no harm; revert.sh goes back to what was there before the first time. Nothing survives a
# reboot but irqbalance's ban list, and that is in the journal too.
#
#   --env FILE    what the host is like (default /etc/tickwire/host.env; see host.env.example)
#   --state DIR   where the journal is (default /var/lib/tickwire/tuning)
#
# Exit code: 0 done; 1 a write or check failed, and what had been written was put back; 2 refused, and
# nothing was changed: usage, host.env, a host on which it must not act, no permission; 4 something
# failed and could not be put back (the journal keeps it: revert.sh tries again).
#
# The environment variable TICKWIRE_TUNING_ROOT is put before every path.
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$here/lib/common.sh"
# shellcheck source-path=SCRIPTDIR source=lib/journal.sh
. "$here/lib/journal.sh"
# shellcheck source-path=SCRIPTDIR source=lib/kinds.sh
. "$here/lib/kinds.sh"
# shellcheck source-path=SCRIPTDIR source=lib/knobs.sh
. "$here/lib/knobs.sh"
# shellcheck source-path=SCRIPTDIR source=lib/undo.sh
. "$here/lib/undo.sh"

env_file="$ROOT/etc/tickwire/host.env"
state_dir="$ROOT/var/lib/tickwire/tuning"
apply=
while [ $# -gt 0 ]; do
  case "$1" in
    --env | --state)
      [ $# -ge 2 ] || refuse "$1 needs a value; try --help"
      if [ "$1" = --env ]; then env_file="$2"; else state_dir="$2"; fi
      shift
      ;;
    --apply) apply=1 ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) refuse "unknown argument ${1@Q}; try --help" ;;
  esac
  shift
done

for written in "$state_dir"/*; do
  [ ! "$env_file" -ef "$written" ] || refuse "--env $env_file is a file of the journal in $state_dir: name another"
done
load_env "$env_file"
load_cpus
check_cpus
check_container
if [ -n "$apply" ] && [ -z "$ROOT" ] && [ "$(id -u)" -ne 0 ]; then
  refuse "not root: the plan needs no privilege, --apply does"
fi
read_boot_id
# From here on it ends between two writes only, also when nobody reads what it prints any more.
interrupted=
if [ -n "$apply" ]; then
  trap 'interrupted=1' INT TERM HUP PIPE
  journal_lock "$state_dir"
  journal_load "$state_dir"
  if [ -n "$JOURNAL_BOOT" ] && [ "$JOURNAL_BOOT" != "$BOOT_ID" ]; then
    say "# the journal is of an earlier boot: what outlived it is put back first"
    undo_from 0 keep
    if [ "$CHANGED" -gt 0 ] || [ "$STUCK" -gt 0 ]; then
      refuse "the journal of an earlier boot has entries that are not settled: see revert.sh --help"
    fi
  fi
else
  # To know which holder is ours; a journal that may not be read is as good as none for a plan.
  if [ -r "$state_dir/journal" ]; then journal_load "$state_dir"; fi
fi
build_knobs
load_tuned
check_siblings

set_to_list "$E"; line="engine on CPUs $REPLY"
if [ -n "$C" ]; then set_to_list "$C"; line+=", its control plane on $REPLY"; fi
set_to_list "$H"; line+=", housekeeping on $REPLY"
say "# $line"
print_isolation
print_clocks

# ------------------------------------------------------------------------------------------- the plan

# Everything is looked at before anything is written, and again right before each write.
writes=0 unmovable=0 denied=() owned=()
_describe() {  # INDEX: what a reader wants to know of a write
  _shown "$CURRENT"
  if [ "${K_KIND[$1]}" = irqbalance ]; then REPLY="other bans"; fi
  local text="now ${REPLY:-empty}"
  if [ "${K_KIND[$1]}" = hold ]; then text="nobody of ours holds it now"; fi
  if [ "${K_KIND[$1]}" = irq ]; then irq_name "${K_TARGET[$1]}"; text+="; $REPLY"; fi
  REPLY="$text"
}

for group in "${GROUPS_IN_ORDER[@]}"; do
  wanted=0 lines=()
  for index in "${!K_GROUP[@]}"; do
    [ "${K_GROUP[index]}" = "$group" ] || continue
    target="${K_TARGET[index]}"
    knob_state "$index"
    case "$STATE" in
      ok) wanted=$((wanted + 1)) ;;
      absent) lines+=("#   not here: $target") ;;
      denied) lines+=("#   not allowed to read: $target"); denied+=("$target") ;;
      fixed)
        if [ "${K_KIND[index]}" = irq ]; then
          irq_name "$target"
          lines+=("#   cannot be moved: $REPLY, on CPU $CURRENT")
          unmovable=$((unmovable + 1))
        else
          lines+=("#   read-only in this kernel: $target is $CURRENT")
        fi
        ;;
      write)
        writes=$((writes + 1))
        if tuned_owns "$index"; then owned+=("$group: $target"); fi
        if [ -f "$ROOT$target" ] && [ ! -w "$ROOT$target" ]; then denied+=("$target"); fi
        _describe "$index"
        now="$REPLY"
        kind_command "${K_KIND[index]}" "$target" "${K_WANTED[index]}"
        lines+=("$REPLY  # $now")
        ;;
    esac
  done
  [ "$wanted" -gt 0 ] || [ "${#lines[@]}" -gt 0 ] || continue
  if [ -z "$apply" ] || [ "${#lines[@]}" -gt 0 ]; then say "# [$group] ${GROUP_WHY[$group]}"; fi
  if [ "$wanted" -gt 0 ] && [ -z "$apply" ]; then say "#   as wanted: $wanted"; fi
  if [ -z "$apply" ]; then
    for line in "${lines[@]}"; do say "$line"; done
    continue
  fi
  for line in "${lines[@]}"; do case "$line" in '#'*) say "$line" ;; esac; done
done
for line in "${NOTICES[@]}"; do say "# note: $line"; done
if [ -z "$apply" ]; then
  boot_words
  say "# for the boot line, see boot-line.sh: $REPLY"
fi

if [ "${#owned[@]}" -gt 0 ]; then
  refuse "TuneD's active profile $TUNED_PROFILE sets what this would set (${owned[*]}): choose one of them," \
    "with tuned-adm off or with SKIP in host.env"
fi
if [ -z "$apply" ]; then
  if [ "$writes" -eq 0 ]; then say "# nothing to do"; else say "# $writes writes; --apply does them, revert.sh undoes them"; fi
  exit 0
fi
[ "${#denied[@]}" -eq 0 ] || refuse "no permission for ${#denied[@]} settings, the first is ${denied[0]}: run as root"
if [ "$writes" -eq 0 ]; then say "# nothing to do"; exit 0; fi

# ------------------------------------------------------------------------------------------- the writes

journal_open || refuse "cannot write the journal in $state_dir"
first="$ENTRIES" written=0

# Puts back what this run has written, and ends it.
roll_back() {  # WHY
  # Nothing interrupts this: it is the way back.
  trap '' INT TERM HUP PIPE
  warn "$1"
  say "# putting back what was written"
  undo_from "$first" keep
  if [ "$CHANGED" -gt 0 ] || [ "$STUCK" -gt 0 ]; then
    warn "not everything is back: the journal is $JOURNAL, revert.sh tries again"
    exit "$EXIT_STUCK"
  fi
  warn "failed; the host is as it was before"
  exit "$EXIT_FAILED"
}

for index in "${!K_GROUP[@]}"; do
  [ -z "$interrupted" ] || roll_back "interrupted"
  kind="${K_KIND[index]}" target="${K_TARGET[index]}" value="${K_WANTED[index]}"
  knob_state "$index"
  [ "$STATE" = write ] || continue
  # Between the plan and now it may have gone.
  if [ "$kind" = hold ]; then
    hold_prepare "$target" || roll_back "$target: cannot start the process that is to hold it"
    value="$HOLDER"
  fi
  encode "$CURRENT"; old="$REPLY"
  if [ "$CURRENT" = '!' ]; then old='!'; fi
  encode "$value"
  journal_will "$kind" "$target" "$old" "$REPLY" || roll_back "cannot write the journal in $state_dir"
  number=$((ENTRIES - 1)) shown="$value"
  if [ "$kind" = irqbalance ]; then shown="its bans"; fi
  kind_command "$kind" "$target" "$value"
  say "$REPLY"
  if ! kind_write "$kind" "$target" "$value"; then
    if [ "$kind" = irq ] && irq_unmovable; then
      irq_name "$target"
      say "#   cannot be moved: $REPLY ($WRITE_ERROR)"
      journal_back "$number" || roll_back "cannot write the journal in $state_dir"
      unmovable=$((unmovable + 1))
      continue
    fi
    roll_back "$target: cannot write $shown: $WRITE_ERROR (SKIP=${K_GROUP[index]} in host.env leaves it alone)"
  fi
  kind_read "$kind" "$target" || roll_back "$target: cannot be read back"
  now="$REPLY"
  encode "$now"
  journal_done "$number" "$REPLY" || roll_back "cannot write the journal in $state_dir"
  if ! knob_is "$index" "$now"; then
    # What the kernel does not keep at once may show its reason first.
    kind_effect "$kind" "$target" "$value" || roll_back "$target: $REPLY"
    hint=
    if [ "$kind" = pages ]; then hint="; ask for fewer, or reserve them at boot: boot-line.sh"; fi
    roll_back "$target: wrote $shown, and it reads $now$hint (SKIP=${K_GROUP[index]} in host.env leaves it alone)"
  fi
  written=$((written + 1))
done

# ----------------------------------------------------------------------------------------- the effects

for ((index = first; index < ENTRIES; index++)); do
  [ -z "$interrupted" ] || roll_back "interrupted"
  [ -n "${J_OPEN[index]}" ] || continue
  decode "${J_NEW[index]}"
  code=0
  kind_effect "${J_KIND[index]}" "${J_TARGET[index]}" "$REPLY" || code=$?
  case "$code" in
    0) ;;
    2) say "# note: $REPLY" ;;
    *) roll_back "${J_TARGET[index]}: $REPLY" ;;
  esac
done

say "# done: $written written and read back$([ "$unmovable" -eq 0 ] || printf ', %s interrupts cannot be moved' "$unmovable")"
say "# journal: $JOURNAL; revert.sh puts everything back"
if [ "${ENV[ISOLATE]}" = partition ] && [ -d "$ROOT/sys/fs/cgroup/tickwire.slice" ]; then
  say "# start the engine in the partition: systemd-run --slice=tickwire.slice --uid=${ENV[SERVICE_USER]} --pty COMMAND"
  say "# without systemd, as root in the shell that is to start it: echo \$\$ > $ROOT/sys/fs/cgroup/tickwire.slice/cgroup.procs"
fi
