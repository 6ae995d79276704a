# The kinds of setting: how each is read, written, compared and shown. Sourced, not run.
#
# For a kind K: read_K TARGET leaves the value in REPLY (1: not there, 2: not allowed, 3: not readable),
# write_K TARGET VALUE sets it, command_K TARGET VALUE leaves the shell command that does the same in
# REPLY, same_K A B compares, effect_K TARGET VALUE looks whether it took: 1 fails, 2 only warns, the
# reason in REPLY. A kind without one of these takes that of `text`. "!" as value: not there.
# shellcheck shell=bash

_kind() {  # FUNCTION KIND ARGUMENT ...
  local function="$1_$2"
  declare -F "$function" >/dev/null || function="$1_text"
  "$function" "${@:3}"
}
kind_read() { _kind read "$@"; }
kind_write() { WRITE_ERROR='' && _kind write "$@"; }
kind_command() { _kind command "$@"; }
kind_same() { [ "$2" = "$3" ] || _kind same "$@"; }
kind_effect() { _kind effect "$@"; }

# What the last write that failed had to say.
declare WRITE_ERROR=''

_run() {  # COMMAND ...
  WRITE_ERROR="$("$@" 2>&1 >/dev/null)" && return
  [ -n "$WRITE_ERROR" ] || WRITE_ERROR="$1 failed"
  WRITE_ERROR="${WRITE_ERROR##*$'\n'}"
  return 1
}

# --------------------------------------------------------------------------- text: a file of one value

read_text() { read_file "$ROOT$1"; }
write_text() { _tee "$ROOT$1" "$2"; }
same_text() { return 1; }
effect_text() { return 0; }
command_text() {
  local value
  _quote "$2"; value="$REPLY"
  _quote "$ROOT$1"
  REPLY="echo $value > $REPLY"
}

# A write that the kernel refuses says why, which bash's own echo does not tell apart.
_tee() {  # PATH VALUE
  WRITE_ERROR="$(printf '%s\n' "$2" | tee -- "$1" 2>&1 >/dev/null)" && return
  WRITE_ERROR="${WRITE_ERROR##*: }"
  return 1
}

# As a shell takes it.
_quote() {
  if [[ "$1" =~ ^[A-Za-z0-9._/:,=@+-]+$ ]]; then REPLY="$1"; else REPLY="${1@Q}"; fi
}

# ------------------------------------------------------------------ sets of CPUs, as a list or as a mask

same_list() {
  local a
  list_to_set "$1" || return 1
  a="$REPLY"
  list_to_set "$2" && [ "$a" = "$REPLY" ]
}

same_mask() {
  local a
  mask_to_set "$1" || return 1
  a="$REPLY"
  mask_to_set "$2" && [ "$a" = "$REPLY" ]
}

# ---------------------------------------------------------------- choice: "always [madvise] never"

read_choice() {
  read_file "$ROOT$1" || return
  if [[ "$REPLY" =~ \[([^]]*)\] ]]; then REPLY="${BASH_REMATCH[1]}"; fi
}

# ------------------------------------------------------------------- irq: a list, and where it arrives

same_irq() { same_list "$@"; }

# Managed and per-CPU interrupts refuse, and that is theirs to do. Newer kernels say so beforehand: their
# file is read-only.
irq_unmovable() { case "$WRITE_ERROR" in *'Input/output error'* | *'not permitted'*) return 0 ;; *) return 1 ;; esac; }

irq_name() {  # /proc/irq/N/...
  local folder="${1%/*}" action names=''
  for action in "$ROOT$folder"/*/; do
    if [ -d "$action" ]; then action="${action%/}" names+=" ${action##*/}"; fi
  done
  REPLY="IRQ ${folder##*/}${names}"
}

effect_irq() {
  local effective
  read_file "$ROOT${1%/*}/effective_affinity_list" && list_to_set "$REPLY" || return 0
  effective="$REPLY"
  set_common "$effective" "$E"
  [ -n "$REPLY" ] || return 0
  irq_name "$1"
  REPLY="$REPLY still arrives on CPU $effective: it moves with its next interrupt"
  return 2
}

# --------------------------------------------------------------------------- pages: a huge page pool

# What the pool is to hold: pages beyond it that are still in use (surplus) go by themselves when released.
read_pages() {
  local pages
  read_file "$ROOT$1" || return
  pages="$REPLY"
  if read_file "$ROOT${1%/*}/surplus_hugepages" && [[ "$pages" =~ ^[0-9]+$ && "$REPLY" =~ ^[0-9]+$ ]]; then
    pages=$((pages - REPLY))
  fi
  REPLY="$pages"
}

write_pages() {
  _tee "$ROOT$1" "$2" || return
  # What the kernel could not find in one piece it may find after moving things together.
  if read_pages "$1" && [[ "$REPLY" =~ ^[0-9]+$ ]] && [ "$REPLY" -lt "$2" ] &&
    [ -w "$ROOT/proc/sys/vm/compact_memory" ]; then
    printf '1\n' | tee -- "$ROOT/proc/sys/vm/compact_memory" >/dev/null 2>&1 || true
    _tee "$ROOT$1" "$2"
  fi
}

# ------------------------------------------------------------- cgroups: a folder, its controller, its kind

read_folder() {
  [ -d "$ROOT${1%/*}" ] || return 1
  if [ -d "$ROOT$1" ]; then REPLY=there; else REPLY='!'; fi
}
write_folder() {
  if [ "$2" = there ]; then _run mkdir -- "$ROOT$1"; else _run rmdir -- "$ROOT$1"; fi
}
command_folder() {
  _quote "$ROOT$1"
  if [ "$2" = there ]; then REPLY="mkdir $REPLY"; else REPLY="rmdir $REPLY"; fi
}

# cgroup.subtree_control lists what is on, and is written as "+cpuset" or "-cpuset".
read_cpuset() {
  read_file "$ROOT$1" || return
  case " $REPLY " in *' cpuset '*) REPLY=+cpuset ;; *) REPLY=-cpuset ;; esac
}

# "isolated invalid (why)" is the kernel's word for a partition that it does not keep.
same_partition() { [ "${1%% *}" = "${2%% *}" ]; }
effect_partition() {
  read_file "$ROOT$1" || return 0
  case "$REPLY" in
    *invalid*) REPLY="the kernel does not keep the partition: $REPLY"; return 1 ;;
  esac
}

# -------------------------------------------------- irqbalance: its environment file, and a restart

readonly _IRQBALANCE_KEYS='^(export )?IRQBALANCE_BANNED_CPU(S|LIST)='

read_irqbalance() {
  [ -d "$ROOT${1%/*}" ] || return 1
  if [ ! -e "$ROOT$1" ]; then REPLY='!' && return; fi
  read_file "$ROOT$1" || return
  # With the newlines at its end: the file goes back byte for byte.
  REPLY="$(cat -- "$ROOT$1" && printf x)" || return 3
  REPLY="${REPLY%x}"
}

# The file with these CPUs banned. Both keys: old versions know the mask only, new ones the list.
irqbalance_text() {  # TEXT LIST
  local text='' line list="$2"
  while IFS= read -r line; do
    [[ "$line" =~ $_IRQBALANCE_KEYS ]] || text+="$line"$'\n'
  done <<<"${1%$'\n'}"
  if [ -z "$1" ] || [ "$1" = '!' ]; then text=''; fi
  list_to_set "$list"
  set_to_mask "$REPLY"
  REPLY="${text}IRQBALANCE_BANNED_CPUS=${REPLY//,/}"$'\n'"IRQBALANCE_BANNED_CPULIST=$list"$'\n'
}

write_irqbalance() {
  local path="$ROOT$1" next="$ROOT$1.tickwire-new"
  if [ "$2" = '!' ]; then
    _run rm -f -- "$path" || return
  else
    # Whole or not at all, with the mode it had.
    if [ -e "$path" ]; then _run cp --preserve=all -- "$path" "$next" || return; fi
    { printf '%s' "$2" >"$next" && sync -- "$next"; } 2>/dev/null || { WRITE_ERROR="cannot write $next"; return 1; }
    _run mv -- "$next" "$path" || return
  fi
  _run systemctl try-restart irqbalance.service
}

command_irqbalance() {
  local line text=''
  while IFS= read -r line; do
    if [[ "$line" =~ $_IRQBALANCE_KEYS ]]; then text+="$line"$'\n'; fi
  done <<<"$2"
  text="${text%$'\n'}"
  printf -v REPLY "{ grep -v '^IRQBALANCE_BANNED_CPU' %s; printf '%%s\\\\n' %s; } > %s.new && mv %s.new %s && %s" \
    "$ROOT$1" "${text//$'\n'/ }" "$ROOT$1" "$ROOT$1" "$ROOT$1" 'systemctl try-restart irqbalance.service'
}

# The daemon looks around every ten seconds; what it has moved by then shows.
effect_irqbalance() {
  local tries irq left
  for ((tries = 0; tries < 12; tries++)); do
    left=0
    for irq in "$ROOT"/proc/irq/[0-9]*/effective_affinity_list; do
      if ! read_file "$irq" || ! list_to_set "$REPLY"; then continue; fi
      set_common "$REPLY" "$E"
      [ -z "$REPLY" ] || left=$((left + 1))
    done
    [ "$left" -gt 0 ] || return 0
    sleep 1
  done
  REPLY="$left interrupts still arrive on the engine's cores: irqbalance moves what it can within its next rounds"
  return 2
}

# ------------------------------------------------------ hold: a process that keeps a device open

# The value is the holder, pid:start. Started, it waits: first the journal must know it, then it may
# open the device. If we die in between, its pipe ends and so does it.
declare HOLDER='' _GO=''

hold_prepare() {  # TARGET: leaves the waiting holder in HOLDER
  local device="$ROOT$1"
  # shellcheck disable=SC2016,SC2261  # The holder expands these itself.
  exec {_GO}> >(exec nohup bash -c '
    trap "" INT QUIT
    cd / && read -r go && [ "$go" = go ] || exit 0
    exec <&- && exec 3>"$1" && printf "\0\0\0\0" >&3 && exec -a tickwire-hold sleep infinity
  ' tickwire-hold "$device" >/dev/null 2>&1)
  process_start "$!" || return 1
  # shellcheck disable=SC2034  # apply.sh reads it.
  HOLDER="$!:$REPLY"
}

read_hold() {
  local index
  [ -e "$ROOT$1" ] || return 1
  for ((index = ENTRIES - 1; index >= 0; index--)); do
    if [ "${J_KIND[index]}" = hold ] && [ -n "${J_OPEN[index]}" ] && process_lives "${J_NEW[index]}"; then
      REPLY="${J_NEW[index]}"
      return 0
    fi
  done
  REPLY='!'
}

# Lets the prepared holder open the device.
write_hold() {
  local tries
  printf 'go\n' >&"$_GO" || return 1
  exec {_GO}>&-
  for ((tries = 0; tries < 250; tries++)); do
    process_lives "$2" || break
    # It has become the sleeping process once the device is open and written to.
    if read_file "/proc/${2%%:*}/comm" && [ "$REPLY" = sleep ]; then return 0; fi
    sleep 0.02
  done
  WRITE_ERROR="the holder could not open $ROOT$1"
  return 1
}

hold_end() {  # PID:START
  local tries
  process_lives "$1" || return 0
  kill -TERM "${1%%:*}" 2>/dev/null || true
  for ((tries = 0; tries < 100; tries++)); do
    process_lives "$1" || return 0
    sleep 0.02
  done
  WRITE_ERROR="process ${1%%:*} does not end"
  return 1
}

command_hold() {
  _quote "$ROOT$1"
  REPLY="(printf '\\0\\0\\0\\0' >&3 && exec sleep infinity) 3> $REPLY &"
}

# Reading the device gives the limit that is in force.
effect_hold() {
  REPLY="$(od -An -td4 -N4 -- "$ROOT$1" 2>/dev/null)"
  [ "${REPLY// /}" = 0 ] && return
  REPLY="$1 gives a limit of ${REPLY// /} microseconds, expected 0"
  return 1
}

# --------------------------------------------------- nic: one parameter of an interface, by ethtool
#
# Targets: IF/adaptive-rx, IF/rx-usecs, IF/rx-ring, IF/ntuple.

read_nic() {
  local interface="${1%%/*}" text line value='' current=''
  local -A option=([adaptive-rx]=-c [rx-usecs]=-c [rx-ring]=-g [ntuple]=-k)
  have ethtool || return 1
  text="$(ethtool "${option[${1#*/}]}" "$interface" 2>/dev/null)" || return 1
  while IFS= read -r line; do
    case "${1#*/}:$line" in
      adaptive-rx:'Adaptive RX:'*) value="${line#*: }" value="${value%% *}" ;;
      rx-usecs:'rx-usecs:'*) value="${line##*[[:space:]]}" ;;
      ntuple:'ntuple-filters:'*) value="${line#*: }" ;;
      rx-ring:'Current hardware settings:'*) current=1 ;;
      rx-ring:'RX:'*) if [ -n "$current" ]; then value="${line##*[[:space:]]}"; fi ;;
    esac
  done <<<"$text"
  case "$value" in '' | n/a | *'[fixed]') return 1 ;; esac
  REPLY="$value"
}

nic_ring_max() {  # INTERFACE
  local line
  REPLY=
  while IFS= read -r line; do
    case "$line" in
      'RX:'*) REPLY="${line##*[[:space:]]}"; break ;;
    esac
  done < <(ethtool -g "$1" 2>/dev/null)
  [[ "$REPLY" =~ ^[0-9]+$ ]]
}

_nic_words() {  # TARGET VALUE -> WORDS
  local interface="${1%%/*}"
  case "${1#*/}" in
    rx-ring) WORDS=(ethtool -G "$interface" rx "$2") ;;
    ntuple) WORDS=(ethtool -K "$interface" ntuple "$2") ;;
    *) WORDS=(ethtool -C "$interface" "${1#*/}" "$2") ;;
  esac
}
write_nic() { local -a WORDS; _nic_words "$@"; _run "${WORDS[@]}"; }
command_nic() { local -a WORDS; _nic_words "$@"; REPLY="${WORDS[*]}"; }

# ------------------------------------------------------- flow: a receive rule of an interface, IF/NUMBER
#
# The value is "udp4 ADDRESS PORT QUEUE". A rule that says anything else is somebody else's.

read_flow() {
  local interface="${1%%/*}" line type='' address='' port='' queue='' found=''
  have ethtool || return 1
  REPLY='!'
  while IFS= read -r line; do
    case "$line" in
      *'Filter: '*) found="${line##*: }" ;;
      *'Rule Type: UDP over IPv4'*) type=udp4 ;;
      *'Rule Type: TCP over IPv4'*) type=tcp4 ;;
      *'Dest IP addr: '*) address="${line#*addr: }" address="${address%% *}" ;;
      *'Dest port: '*) port="${line#*port: }" port="${port%% *}" ;;
      *'Direct to queue '*) queue="${line##* }" ;;
    esac
  done < <(ethtool -n "$interface" rule "${1#*/}" 2>/dev/null)
  if [ "$found" = "${1#*/}" ]; then REPLY="${type:-other} $address $port $queue"; fi
}

_flow_words() {  # TARGET VALUE -> WORDS
  local type address port queue
  if [ "$2" = '!' ]; then
    WORDS=(ethtool -N "${1%%/*}" delete "${1#*/}")
    return
  fi
  read -r type address port queue <<<"$2"
  WORDS=(ethtool -N "${1%%/*}" flow-type "$type" dst-ip "$address" dst-port "$port" action "$queue" loc "${1#*/}")
}
write_flow() { local -a WORDS; _flow_words "$@"; _run "${WORDS[@]}"; }
command_flow() { local -a WORDS; _flow_words "$@"; REPLY="${WORDS[*]}"; }
