# What all tuning scripts share: messages, exit codes, sets of CPUs, host.env. Sourced, not run.
#
# A function that gives a value leaves it in REPLY: a subshell for each would cost a fork.
# shellcheck shell=bash

# Bytes, and an order of names that no locale changes.
export LC_ALL=C

# Exit codes, the same in every script here.
readonly EXIT_FAILED=1   # A write or its check failed; what had been written was put back.
readonly EXIT_REFUSED=2  # Wrong usage, host.env, or a host on which we do not act. Nothing changed.
readonly EXIT_CHANGED=3  # Reverted, but for values that somebody else has changed since.
readonly EXIT_STUCK=4    # Something could not be put back; the journal keeps it.
export EXIT_FAILED EXIT_CHANGED EXIT_STUCK

# Prefix of every path read or written: a container's view of its host, or a test's sandbox.
readonly ROOT="${TICKWIRE_TUNING_ROOT:-}"
readonly PROGRAM="${0##*/}"

# Nobody may be listening any more; where that matters, SIGPIPE says so.
say() { printf '%s\n' "$*" 2>/dev/null || true; }
warn() { printf '%s: %s\n' "$PROGRAM" "$*" >&2; }
refuse() { warn "refused: $*"; exit "$EXIT_REFUSED"; }
((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 404)) || refuse "bash $BASH_VERSION is too old: 4.4 or newer is needed"

# The comment at the head of a script is its help.
usage() {  # SCRIPT
  local line
  while IFS= read -r line; do
    case "$line" in
      '#!'*) ;;
      '# '* | '#') line="${line#\#}"; say "${line# }" ;;
      *) return ;;
    esac
  done <"$1"
}

have() { command -v "$1" >/dev/null 2>&1; }

# The whole text of a file, without the newline at its end. 1: there is none; 2: it may not be read;
# 3: reading it fails (a setting that this device does not have).
read_file() {  # PATH
  REPLY=
  [ -e "$1" ] || return 1
  [ -r "$1" ] || return 2
  { REPLY="$(<"$1")"; } 2>/dev/null
  # Bash does not tell an error from an empty file; the slower way does.
  [ -n "$REPLY" ] || cat -- "$1" >/dev/null 2>&1 || return 3
}

# -------------------------------------------------------------------------------------- sets of CPUs
#
# A set is its numbers in order, with a space between: "0 1 5".

# 1 when it is no CPU list. Knows the kernel's ways to say none: empty and "(null)".
list_to_set() {  # LIST
  local list="$1" part first last cpu
  local -a parts
  local -A members=()
  REPLY=
  if [ -z "$list" ] || [ "$list" = "(null)" ]; then return 0; fi
  [[ "$list" =~ ^[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*$ ]] || return 1
  IFS=, read -ra parts <<<"$list"
  for part in "${parts[@]}"; do
    first=$((10#${part%-*})) last=$((10#${part#*-}))
    [ "$first" -le "$last" ] || return 1
    for ((cpu = first; cpu <= last; cpu++)); do members[$cpu]=1; done
  done
  _sorted "${!members[@]}"
}

_sorted() {  # NUMBER ... -> REPLY
  local -a sparse=()
  local number
  for number in "$@"; do sparse[number]=1; done
  REPLY="${!sparse[*]}"
}

set_to_list() {  # SET
  local cpu first='' last='' list=''
  # The dash closes the last run.
  for cpu in $1 -; do
    if [ "$cpu" != - ] && [ -n "$last" ] && [ "$cpu" -eq $((last + 1)) ]; then
      last="$cpu"
      continue
    fi
    if [ -n "$first" ]; then
      list+="${list:+,}$first"
      if [ "$first" != "$last" ]; then list+="-$last"; fi
    fi
    first="$cpu" last="$cpu"
  done
  REPLY="$list"
}

# The kernel's hexadecimal masks: groups of 32 bits, the highest first.
mask_to_set() {  # MASK
  local mask="${1//,/}" cpus='' index digit bit
  REPLY=
  [[ "$1" =~ ^[0-9a-fA-F]{1,8}(,[0-9a-fA-F]{1,8})*$ ]] || return 1
  # All groups but the highest have eight digits when the kernel prints them.
  for ((index = 0; index < ${#mask}; index++)); do
    digit=$((16#${mask:${#mask}-1-index:1}))
    for bit in 0 1 2 3; do
      if ((digit >> bit & 1)); then cpus+=" $((index * 4 + bit))"; fi
    done
  done
  REPLY="${cpus# }"
}

set_to_mask() {  # SET
  local -a groups=(0)
  local cpu text='' index highest=0
  for cpu in $1; do
    index=$((cpu / 32))
    groups[index]=$((${groups[index]:-0} | 1 << cpu % 32))
    if [ "$index" -gt "$highest" ]; then highest="$index"; fi
  done
  printf -v text '%x' "${groups[highest]}"
  for ((index = highest - 1; index >= 0; index--)); do
    printf -v text '%s,%08x' "$text" "${groups[index]:-0}"
  done
  REPLY="$text"
}

set_minus() { _filter 0 "$1" "$2"; }   # A B
set_common() { _filter 1 "$1" "$2"; }  # A B
_filter() {  # WANT A B: the members of A that are (1) or are not (0) in B
  local cpu kept=''
  for cpu in $2; do
    case " $3 " in
      *" $cpu "*) [ "$1" = 0 ] || kept+=" $cpu" ;;
      *) [ "$1" = 1 ] || kept+=" $cpu" ;;
    esac
  done
  REPLY="${kept# }"
}

set_union() {  # A B
  # shellcheck disable=SC2086  # Numbers, one a word.
  _sorted $1 $2
}

# ------------------------------------------------------------------------------------------ host.env

# Every key, its default and what a value of it looks like. A value that does not match is refused,
# so nothing below has to mistrust one.
declare -A ENV=() _PATTERN=()
declare -a FLOWS=()

_key() { ENV[$1]="$2" _PATTERN[$1]="$3"; }  # NAME DEFAULT PATTERN
_cpus='^([0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*)?$'
_name='[A-Za-z0-9_][A-Za-z0-9_.@-]{0,14}'
_pages='^([0-9]{1,7}|[0-9]{1,4}:[0-9]{1,7}(,[0-9]{1,4}:[0-9]{1,7})*)?$'
_path='^(/[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]*)+$'
_yes_no='^(yes|no)$'
_key ENGINE_CPUS '' "$_cpus"
_key HOUSEKEEPING_CPUS '' "$_cpus"
_key CONTROL_CPUS '' "$_cpus"
_key ISOLATE no '^(no|partition)$'
_key INTERFACES '' "^($_name( +$_name)*)?\$"
_key FLOW '' "^$_name +(udp4|tcp4) +[0-9]{1,3}(\\.[0-9]{1,3}){3} +[0-9]{1,5} +[0-9]{1,4} +[0-9]{1,6}\$"
_key RX_USECS 0 '^[0-9]{0,6}$'
_key RX_RING '' '^([0-9]{1,6}|max)?$'
_key BUSY_POLL_US 50 '^[0-9]{0,6}$'
_key PREFER_BUSY_POLL no "$_yes_no"
_key RECEIVE_BUFFER_BYTES 67108864 '^[0-9]{0,10}$'
_key HUGE_PAGES_2M '' "$_pages"
_key HUGE_PAGES_1G '' "$_pages"
_key IDLE_STATES engine '^(engine|host|leave)$'
_key REALTIME no "$_yes_no"
_key SKIP '' '^([a-z0-9-]+( +[a-z0-9-]+)*)?$'
_key ALLOW_CPU0 no "$_yes_no"
_key ALLOW_SEVERAL_NODES no "$_yes_no"
_key SERVICE_USER tickwire '^[a-z_][a-z0-9_-]{0,31}$'
_key SERVICE_COMMAND /opt/tickwire/bin/tickwire "$_path"
_key SERVICE_CONFIG /etc/tickwire/pipeline.toml "$_path"

# Reads host.env into ENV and FLOWS. Nothing in it is ever executed or expanded.
load_env() {  # FILE
  local file="$1" line key value number=0
  local -A seen=()
  [ -f "$file" ] && [ -r "$file" ] ||
    refuse "no file $file to read: write one with \`tickwire tune example\` (or copy host.env.example) and edit" \
      "it, or name yours with --env FILE"
  while IFS= read -r line || [ -n "$line" ]; do
    number=$((number + 1))
    line="${line%$'\r'}"
    [[ "$line" =~ ^[[:space:]]*(#|$) ]] && continue
    [[ "$line" =~ ^[[:space:]]*([A-Za-z_][A-Za-z0-9_]*)=(.*)$ ]] ||
      refuse "$file:$number: expected KEY=VALUE, found: ${line@Q}"
    key="${BASH_REMATCH[1]}" value="${BASH_REMATCH[2]}"
    value="${value%"${value##*[![:space:]]}"}"
    if [[ "$value" =~ ^\"([^\"]*)\"$ || "$value" =~ ^\'([^\']*)\'$ ]]; then value="${BASH_REMATCH[1]}"; fi
    [ -n "${_PATTERN[$key]+known}" ] || refuse "$file:$number: unknown key $key; \`tickwire tune example\` lists them"
    if [ "$key" != FLOW ] && [ -n "${seen[$key]+again}" ]; then
      refuse "$file:$number: $key is set again, first on line ${seen[$key]}"
    fi
    seen[$key]="$number"
    [[ "$value" =~ ${_PATTERN[$key]} ]] ||
      refuse "$file:$number: $key: not a value it can have: ${value@Q}; \`tickwire tune example\` shows what it can"
    if [ "$key" = FLOW ]; then FLOWS+=("$value"); else ENV[$key]="$value"; fi
  done <"$file"
  [ -n "${ENV[ENGINE_CPUS]}" ] || refuse "$file: ENGINE_CPUS is not set: the cores on which the engine's threads run"
}

# ------------------------------------------------------------------------------------------ the host

# The sets all scripts speak of: ONLINE, E (the engine's), C (its control plane's, in a partition only),
# EC (both) and H (housekeeping).
declare ONLINE='' E='' C='' EC='' H=''
declare -a NODES=()  # NUMA nodes of the engine's cores.

load_cpus() {
  local node
  read_file "$ROOT/sys/devices/system/cpu/online" || refuse "cannot read $ROOT/sys/devices/system/cpu/online"
  list_to_set "$REPLY" || refuse "$ROOT/sys/devices/system/cpu/online: not a CPU list: $REPLY"
  ONLINE="$REPLY"
  list_to_set "${ENV[ENGINE_CPUS]}" || refuse "ENGINE_CPUS: not a CPU list: ${ENV[ENGINE_CPUS]}"
  E="$REPLY"
  list_to_set "${ENV[CONTROL_CPUS]}" || refuse "CONTROL_CPUS: not a CPU list: ${ENV[CONTROL_CPUS]}"
  C="$REPLY"
  set_union "$E" "$C"
  EC="$REPLY"
  set_minus "$ONLINE" "$EC"
  H="$REPLY"
  if [ -n "${ENV[HOUSEKEEPING_CPUS]}" ]; then
    list_to_set "${ENV[HOUSEKEEPING_CPUS]}" ||
      refuse "HOUSEKEEPING_CPUS: not a CPU list: ${ENV[HOUSEKEEPING_CPUS]}"
    H="$REPLY"
  fi
  NODES=()
  for node in "$ROOT"/sys/devices/system/node/node[0-9]*; do
    if ! read_file "$node/cpulist" || ! list_to_set "$REPLY"; then continue; fi
    set_common "$E" "$REPLY"
    if [ -n "$REPLY" ]; then NODES+=("${node##*/node}"); fi
  done
}

# What makes any tuning of this host wrong, whatever the knobs are.
check_cpus() {
  local name
  for name in E C H; do
    set_minus "${!name}" "$ONLINE"
    [ -z "$REPLY" ] || refuse "CPU $REPLY is not online here (online: $ONLINE)"
  done
  set_common "$E" "$C"
  [ -z "$REPLY" ] || refuse "CPU $REPLY is in ENGINE_CPUS and in CONTROL_CPUS"
  set_minus "$ONLINE" "$EC"
  [ -n "$REPLY" ] && [ -n "$H" ] ||
    refuse "ENGINE_CPUS covers every online CPU: leave at least one for interrupts and everything else"
  set_common "$EC" "$H"
  [ -z "$REPLY" ] || refuse "CPU $REPLY is the engine's and in HOUSEKEEPING_CPUS"
  if [ "${ENV[ALLOW_CPU0]}" = no ]; then
    case " $E " in
      *' 0 '*) refuse "ENGINE_CPUS has CPU 0, which keeps the time and collects work that cannot be moved;" \
        "take another, or set ALLOW_CPU0=yes" ;;
    esac
  fi
  if [ "${#NODES[@]}" -gt 1 ] && [ "${ENV[ALLOW_SEVERAL_NODES]}" = no ]; then
    refuse "ENGINE_CPUS is spread over NUMA nodes ${NODES[*]}: memory and queues between them are slower;" \
      "take the cores of one, or set ALLOW_SEVERAL_NODES=yes"
  fi
  if [ "${ENV[ISOLATE]}" = partition ] && [ -z "$C" ]; then
    refuse "ISOLATE=partition needs CONTROL_CPUS: the engine's Python threads live in the partition too," \
      "where nothing moves them off a busy-polling core"
  fi
  if [ "${ENV[ISOLATE]}" = no ] && [ -n "$C" ]; then
    refuse "CONTROL_CPUS is only for ISOLATE=partition; elsewhere the control plane runs on HOUSEKEEPING_CPUS"
  fi
  for name in ${ENV[INTERFACES]}; do
    [ -e "$ROOT/sys/class/net/$name" ] || refuse "INTERFACES: no interface $name here"
  done
  for name in "${FLOWS[@]}"; do
    case " ${ENV[INTERFACES]} " in
      *" ${name%% *} "*) ;;
      *) refuse "FLOW: ${name%% *} is not one of INTERFACES (${ENV[INTERFACES]})" ;;
    esac
  done
}

# In an unprivileged container /sys and /proc/sys are the host's, read-only. In a privileged one they can be
# written, but the interfaces, /etc and the journal would be the container's own, and gone with it. The
# kernel's own threads, which have the second process number, are not among its processes.
check_container() {
  local point options _
  # Neither can be looked at where /proc hides other users' processes.
  if [ -e "$ROOT/proc/1/comm" ] && ! { read_file "$ROOT/proc/2/comm" && [ "$REPLY" = kthreadd ]; }; then
    refuse "this is a container: run on the host, or mount the host's /proc, /sys, /dev, /etc and /var below a" \
      "folder and set TICKWIRE_TUNING_ROOT to it"
  fi
  [ -r "$ROOT/proc/mounts" ] || return 0
  while read -r _ point _ options _; do
    case "$point" in "$ROOT/sys" | "$ROOT/proc" | "$ROOT/proc/sys") ;; *) continue ;; esac
    case ",$options," in
      *,ro,*)
        refuse "$point is mounted read-only: this looks like a container without its host's mounts; run on the" \
          "host, or mount the host's /proc, /sys, /dev and /etc below a folder and set TICKWIRE_TUNING_ROOT to it"
        ;;
    esac
  done <"$ROOT/proc/mounts"
}
