# The table of what is tuned: one `knob` line a setting, in the order in which they are written.
# Sourced, not run. See kinds.sh for what a kind is.
#
#   knob GROUP KIND TARGET WANTED [ACCEPT]
#
# ACCEPT says which other values do as well: ">=", "<=", or words with "|" between. Without it the value
# has to be WANTED.
# shellcheck shell=bash

declare -a K_GROUP=() K_KIND=() K_TARGET=() K_WANTED=() K_ACCEPT=()
declare -A GROUP_WHY=()
declare -a GROUPS_IN_ORDER=()
declare -a NOTICES=()  # What somebody should know and no knob changes.

_group() { GROUP_WHY[$1]="$2" GROUPS_IN_ORDER+=("$1"); }  # NAME WHY
notice() { NOTICES+=("$*"); }

knob() {
  case " ${ENV[SKIP]} " in *" $1 "*) return ;; esac
  K_GROUP+=("$1") K_KIND+=("$2") K_TARGET+=("$3") K_WANTED+=("$4") K_ACCEPT+=("${5:-}")
}

# A set of CPUs that should have none of ours. What it has besides stays; nothing left: all of H, or
# with NONE_IS_FINE the empty set.
_off_engine() {  # GROUP KIND TARGET [NONE_IS_FINE]
  local cpus convert="${2/irq/list}"
  case " ${ENV[SKIP]} " in *" $1 "*) return ;; esac
  if ! kind_read "$2" "$3"; then knob "$1" "$2" "$3" ''; return; fi
  "${convert}_to_set" "$REPLY" || return 0
  cpus="$REPLY"
  set_common "$cpus" "$EC"
  if [ -n "$REPLY" ]; then
    set_common "$cpus" "$H"
    cpus="$REPLY"
    if [ -z "$cpus" ] && [ -z "${4:-}" ]; then cpus="$H"; fi
  fi
  "set_to_$convert" "$cpus"
  knob "$1" "$2" "$3" "$REPLY"
}

sysctl() { knob "$1" text "/proc/sys/${2//./\/}" "$3" "${4:-}"; }  # GROUP NAME WANTED [ACCEPT]

running() {  # NAME
  local file comm
  for file in "$ROOT"/proc/[0-9]*/comm; do
    # By bash alone: there may be thousands. One may have ended meanwhile.
    comm=
    { read -r comm <"$file"; } 2>/dev/null || true
    if [ "$comm" = "$1" ]; then return 0; fi
  done
  return 1
}

kernel_at_least() {  # MAJOR MINOR
  read_file "$ROOT/proc/sys/kernel/osrelease" || return 1
  [[ "$REPLY" =~ ^([0-9]+)\.([0-9]+) ]] || return 1
  [ "${BASH_REMATCH[1]}" -gt "$1" ] || { [ "${BASH_REMATCH[1]}" -eq "$1" ] && [ "${BASH_REMATCH[2]}" -ge "$2" ]; }
}

# What the boot line says after NAME=, all occurrences, one CPU list each; flags before it are dropped.
boot_cpus() {  # NAME -> a set
  local word list='' cpus='' last="${ONLINE##* }"
  read_file "$ROOT/proc/cmdline" || return 0
  for word in $REPLY; do
    [ "${word%%=*}" = "$1" ] || continue
    list="${word#*=}"
    while [[ "$list" =~ ^[a-z_]+,(.*)$ ]]; do list="${BASH_REMATCH[1]}"; done
    # The kernel's word for the last CPU.
    list="${list//N/$last}"
    if [ "$list" = all ]; then cpus="$ONLINE"; continue; fi
    if list_to_set "$list"; then set_union "$cpus" "$REPLY" && cpus="$REPLY"; fi
  done
  REPLY="$cpus"
}

cpus_of_file() {  # PATH -> a set, empty when there is none
  if read_file "$ROOT$1" && list_to_set "$REPLY"; then return; fi
  REPLY=
}

build_knobs() {
  K_GROUP=() K_KIND=() K_TARGET=() K_WANTED=() K_ACCEPT=() GROUPS_IN_ORDER=() NOTICES=()
  _isolation_knobs
  _interrupt_knobs
  _kernel_knobs
  _memory_knobs
  _power_knobs
  _network_knobs
  local group
  for group in ${ENV[SKIP]}; do
    [ -n "${GROUP_WHY[$group]+known}" ] || refuse "SKIP: no group $group; there are: ${GROUPS_IN_ORDER[*]}"
  done
}

_isolation_knobs() {
  local root=/sys/fs/cgroup
  _group partition "an isolated cpuset partition of the engine's cores, $root/tickwire.slice"
  if [ "${ENV[ISOLATE]}" = no ]; then return; fi
  if [ ! -e "$ROOT$root/cgroup.controllers" ]; then
    notice "ISOLATE=partition needs cgroup v2 with cpuset, which is not mounted here: isolate by boot-line.sh"
    return
  fi
  set_to_list "$EC"
  knob partition cpuset "$root/cgroup.subtree_control" +cpuset
  knob partition folder "$root/tickwire.slice" there
  knob partition list "$root/tickwire.slice/cpuset.cpus" "$REPLY"
  knob partition partition "$root/tickwire.slice/cpuset.cpus.partition" isolated
}

_interrupt_knobs() {
  local file banned
  _group irqbalance "keeps off the engine's cores, and off those that it left alone by itself so far"
  _group irq "device interrupts go to housekeeping cores"
  _group default-affinity "so do those of devices that appear later"
  if running irqbalance; then
    # Setting its ban ends its own exclusion of isolated and tickless cores: name those too.
    banned="$EC"
    for file in isolated nohz_full; do
      cpus_of_file "/sys/devices/system/cpu/$file"
      set_union "$banned" "$REPLY"
      banned="$REPLY"
    done
    set_to_list "$banned"
    banned="$REPLY"
    file=/etc/default/irqbalance
    if [ ! -e "$ROOT$file" ] && [ -d "$ROOT/etc/sysconfig" ]; then file=/etc/sysconfig/irqbalance; fi
    if ! have systemctl || [ ! -d "$ROOT/run/systemd/system" ]; then
      notice "irqbalance runs and systemd does not, which would restart it: interrupts are left to it; start it" \
        "anew with IRQBALANCE_BANNED_CPULIST=$banned"
    elif read_irqbalance "$file"; then
      irqbalance_text "$REPLY" "$banned"
      knob irqbalance irqbalance "$file" "$REPLY"
    fi
  else
    # With irqbalance running the masks are its own, and it would write them again.
    for file in "$ROOT"/proc/irq/[0-9]*/smp_affinity_list; do
      if [ -e "$file" ]; then _off_engine irq irq "${file#"$ROOT"}"; fi
    done
  fi
  _off_engine default-affinity mask /proc/irq/default_smp_affinity
}

_kernel_knobs() {
  local file cpu cpus
  _group workqueues "unbound kernel work stays on housekeeping cores"
  for file in cpumask writeback/cpumask blkcg_punt_bio/cpumask; do
    if [ "$file" = cpumask ] || [ -e "$ROOT/sys/devices/virtual/workqueue/$file" ]; then
      _off_engine workqueues mask "/sys/devices/virtual/workqueue/$file"
    fi
  done
  _group timer-migration "timers of idle cores do not gather on a busy one, such as a polling one"
  sysctl timer-migration kernel.timer_migration 0
  _group watchdogs "lock-up detectors do not interrupt the engine's cores"
  _off_engine watchdogs list /proc/sys/kernel/watchdog_cpumask
  sysctl watchdogs kernel.nmi_watchdog 0
  _group realtime "the share of a core that real-time threads must leave to others"
  cpus_of_file /sys/devices/system/cpu/nohz_full
  set_common "$E" "$REPLY"
  cpus="$REPLY"
  if [ "${ENV[REALTIME]}" = yes ]; then
    sysctl realtime kernel.sched_rt_runtime_us -1
    cpus="$E"
  fi
  # From 6.12 on a server per core does what the throttling did, and its timer keeps tickless cores ticking.
  if kernel_at_least 6 12; then
    for cpu in $cpus; do knob realtime text "/sys/kernel/debug/sched/fair_server/cpu$cpu/runtime" 0; done
  fi
}

_memory_knobs() {
  local nodes="${NODES[*]:-}" key size node count part
  _group huge-pages "reserved on the NUMA node of the engine's cores"
  for key in HUGE_PAGES_2M:2048kB HUGE_PAGES_1G:1048576kB; do
    size="${key#*:}" count="${ENV[${key%:*}]}"
    [ -n "$count" ] || continue
    if [[ "$count" != *:* ]]; then
      if [ -z "$nodes" ]; then
        knob huge-pages pages "/sys/kernel/mm/hugepages/hugepages-$size/nr_hugepages" "$count" '>='
        continue
      fi
      part=
      for node in $nodes; do part+="${part:+,}$node:$count"; done
      count="$part"
    fi
    for part in ${count//,/ }; do
      node="/sys/devices/system/node/node${part%:*}"
      [ -d "$ROOT$node" ] || refuse "${key%:*}: no NUMA node ${part%:*} here"
      knob huge-pages pages "$node/hugepages/hugepages-$size/nr_hugepages" "${part#*:}" '>='
    done
  done
  _group thp "transparent huge pages only where asked for: nobody is stopped to build one"
  knob thp choice /sys/kernel/mm/transparent_hugepage/enabled madvise 'madvise|never'
  knob thp choice /sys/kernel/mm/transparent_hugepage/defrag madvise 'madvise|never|defer|defer+madvise'
  knob thp text /sys/kernel/mm/transparent_hugepage/khugepaged/defrag 0
  _group ksm "no scanning for equal pages"
  knob ksm text /sys/kernel/mm/ksm/run 0 '0|2'
  _group numa-balancing "no page faults to find out who uses a page"
  sysctl numa-balancing kernel.numa_balancing 0
  _group vm "statistics, compaction and swapping keep away from running threads"
  sysctl vm vm.stat_interval 10 '>='
  sysctl vm vm.compaction_proactiveness 0
  sysctl vm vm.swappiness 10 '<='
}

_power_knobs() {
  local policy cpu
  _group governor "the engine's cores keep their highest frequency"
  for policy in "$ROOT"/sys/devices/system/cpu/cpufreq/policy[0-9]*; do
    if ! read_file "$policy/related_cpus"; then continue; fi
    set_common "$REPLY" "$E"
    [ -n "$REPLY" ] || continue
    policy="${policy#"$ROOT"}"
    # In this order: under the performance governor some drivers refuse any other preference.
    _if_offered governor "$policy/energy_performance_preference" energy_performance_available_preferences
    _if_offered governor "$policy/scaling_governor" scaling_available_governors
  done
  _group idle-states "the engine's cores do not fall asleep between two turns"
  case "${ENV[IDLE_STATES]}" in
    engine)
      # "n/a" forbids all idle states; 0 would allow all.
      for cpu in $E; do
        knob idle-states text "/sys/devices/system/cpu/cpu$cpu/power/pm_qos_resume_latency_us" n/a
      done
      ;;
    host) knob idle-states hold /dev/cpu_dma_latency held ;;
  esac
}

_if_offered() {  # GROUP TARGET FILE: performance, where the file beside offers it
  if read_file "$ROOT${2%/*}/$3"; then
    case " $REPLY " in *' performance '*) ;; *) return 0 ;; esac
  fi
  knob "$1" text "$2" performance
}

_network_knobs() {
  local interface queue file number flow type address port rule
  local -a queues
  _group receive-buffers "a socket gets the receive buffer it asks for"
  if [ -n "${ENV[RECEIVE_BUFFER_BYTES]}" ]; then
    sysctl receive-buffers net.core.rmem_max "${ENV[RECEIVE_BUFFER_BYTES]}" '>='
  fi
  sysctl receive-buffers net.core.netdev_max_backlog 10000 '>='
  _group busy-poll "sockets look into the device's queue instead of waiting for its interrupt"
  if [ -n "${ENV[BUSY_POLL_US]}" ]; then
    sysctl busy-poll net.core.busy_read "${ENV[BUSY_POLL_US]}"
    sysctl busy-poll net.core.busy_poll "${ENV[BUSY_POLL_US]}"
  fi
  _group rps "packets are not handed to another core on their way, and to the engine's never"
  _group xps "the engine's cores send by the last queue, all others by the rest"
  _group coalescing "an interrupt at once, for what does not poll"
  _group ring "the receive ring holds a burst"
  _group flows "a feed has a receive queue of its own"
  for interface in ${ENV[INTERFACES]}; do
    if [ "${ENV[PREFER_BUSY_POLL]}" = yes ]; then
      knob busy-poll text "/sys/class/net/$interface/napi_defer_hard_irqs" 100
      knob busy-poll text "/sys/class/net/$interface/gro_flush_timeout" 200000
    fi
    for queue in "$ROOT/sys/class/net/$interface"/queues/rx-*; do
      if [ -e "$queue/rps_cpus" ]; then
        queue="${queue#"$ROOT"}"
        knob rps mask "$queue/rps_cpus" 0
        knob rps text "$queue/rps_flow_cnt" 0
      fi
    done
    queues=()
    for ((number = 0; ; number++)); do
      queue="/sys/class/net/$interface/queues/tx-$number"
      if [ ! -d "$ROOT$queue" ]; then break; fi
      queues+=("$queue")
    done
    if [ "${#queues[@]}" -gt 1 ]; then
      for queue in "${queues[@]}"; do
        set_to_mask "$H"
        if [ "$queue" = "${queues[-1]}" ]; then set_to_mask "$EC"; fi
        knob xps mask "$queue/xps_cpus" "$REPLY"
      done
    fi
    if [ -n "${ENV[RX_USECS]}" ]; then
      knob coalescing nic "$interface/adaptive-rx" off
      knob coalescing nic "$interface/rx-usecs" "${ENV[RX_USECS]}"
    fi
    case "${ENV[RX_RING]}" in
      '') ;;
      max) if nic_ring_max "$interface"; then knob ring nic "$interface/rx-ring" "$REPLY"; fi ;;
      *) knob ring nic "$interface/rx-ring" "${ENV[RX_RING]}" ;;
    esac
    if [ -n "${ENV[RX_USECS]}${ENV[RX_RING]}" ] && ! have ethtool; then
      notice "no ethtool here: coalescing, rings and flow steering of $interface are left as they are"
    fi
  done
  # Queues of the other interfaces, where somebody has steered them to the engine's cores.
  for file in "$ROOT"/sys/class/net/*/queues/rx-*/rps_cpus; do
    file="${file#"$ROOT"}" interface="${file#/sys/class/net/}"
    case " ${ENV[INTERFACES]} " in
      *" ${interface%%/*} "*) ;;
      *) if [ -e "$ROOT$file" ]; then _off_engine rps mask "$file" none; fi ;;
    esac
  done
  for flow in "${FLOWS[@]}"; do
    read -r interface type address port queue rule <<<"$flow"
    if read_flow "$interface/$rule" && [ "$REPLY" != '!' ] && [ "$REPLY" != "$type $address $port $queue" ]; then
      refuse "FLOW: rule $rule of $interface is somebody else's ($REPLY): take another number"
    fi
    knob flows nic "$interface/ntuple" on
    knob flows flow "$interface/$rule" "$type $address $port $queue"
  done
}

# ------------------------------------------------------------------------------------------ a knob now

# CURRENT, and STATE: ok, write, absent, denied (no permission to look), fixed (the kernel lets nobody write).
knob_state() {  # INDEX
  local kind="${K_KIND[$1]}" target="${K_TARGET[$1]}" code=0
  STATE='' CURRENT=''
  kind_read "$kind" "$target" || code=$?
  CURRENT="$REPLY"
  if [ "$code" -ne 0 ]; then
    CURRENT=
    if [ "$code" -eq 2 ]; then STATE=denied; else STATE=absent; fi
    # In a folder that this plan makes first.
    if [ -n "${_PLANNED_FOLDERS[${target%/*}]:-}" ]; then STATE='write'; fi
    return 0
  fi
  if knob_is "$1" "$CURRENT"; then
    STATE=ok
  elif [ -f "$ROOT$target" ] && [[ "$(stat -L -c %A -- "$ROOT$target")" != *w* ]]; then
    STATE=fixed
  else
    STATE='write'
    if [ "$kind" = folder ]; then _PLANNED_FOLDERS[$target]=1; fi
  fi
}
declare -A _PLANNED_FOLDERS=()
# shellcheck disable=SC2034  # apply.sh reads them.
declare STATE='' CURRENT=''

knob_is() {  # INDEX VALUE
  local wanted="${K_WANTED[$1]}" accept="${K_ACCEPT[$1]}"
  if [ "${K_KIND[$1]}" = hold ]; then [ "$2" != '!' ]; return; fi
  case "$accept" in
    '') kind_same "${K_KIND[$1]}" "$2" "$wanted" ;;
    '>=') [[ "$2" =~ ^[0-9]+$ ]] && [ "$2" -ge "$wanted" ] ;;
    '<=') [[ "$2" =~ ^[0-9]+$ ]] && [ "$2" -le "$wanted" ] ;;
    *) case "|$accept|" in *"|$2|"*) return 0 ;; *) return 1 ;; esac ;;
  esac
}

# --------------------------------------------------------------------------------- another tuner: TuneD

declare -a _TUNED_CLAIMS=()  # "sysctl /proc/sys/...", "path /sys/...*", "group NAME"
declare TUNED_PROFILE=''

_tuned_read() {  # PROFILE DEPTH
  local name="$1" file='' folder line section='' key value
  [[ "$name" =~ ^[A-Za-z0-9_.-]+$ ]] && [ "$2" -lt 8 ] || return 0
  for folder in /etc/tuned/profiles /etc/tuned /usr/lib/tuned/profiles /usr/lib/tuned; do
    if [ -f "$ROOT$folder/$name/tuned.conf" ]; then file="$ROOT$folder/$name/tuned.conf"; break; fi
  done
  [ -n "$file" ] || return 0
  while IFS= read -r line || [ -n "$line" ]; do
    line="${line#"${line%%[![:space:]]*}"}"
    case "$line" in
      '' | '#'* | ';'*) continue ;;
      '['*) section="${line#[}" section="${section%%]*}"; continue ;;
    esac
    key="${line%%=*}" key="${key%"${key##*[![:space:]]}"}"
    value="${line#*=}" value="${value#"${value%%[![:space:]]*}"}"
    if [ "$key" = type ]; then section="$value"; continue; fi
    case "$section:$key" in
      main:include) for value in ${value//,/ }; do _tuned_read "${value#-}" $(($2 + 1)); done ;;
      sysctl:*) _TUNED_CLAIMS+=("path /proc/sys/${key//./\/}") ;;
      # Its own profiles name work queues by the bus, which is a link to where we do.
      sysfs:*) _TUNED_CLAIMS+=("path ${key/#\/sys\/bus\/workqueue\/devices\///sys/devices/virtual/workqueue/}") ;;
      cpu:governor* | cpu:energy_performance_preference*) _TUNED_CLAIMS+=("group governor") ;;
      cpu:force_latency* | cpu:pm_qos_resume_latency_us*) _TUNED_CLAIMS+=("group idle-states") ;;
      vm:transparent_hugepage*) _TUNED_CLAIMS+=("group thp") ;;
      irqbalance:*) _TUNED_CLAIMS+=("group irqbalance") ;;
      irq:* | scheduler:isolated_cores | scheduler:default_irq_smp_affinity)
        _TUNED_CLAIMS+=("group irq" "group default-affinity") ;;
      net:coalesce*) _TUNED_CLAIMS+=("group coalescing") ;;
      net:ring*) _TUNED_CLAIMS+=("group ring") ;;
      net:features*) _TUNED_CLAIMS+=("group flows") ;;
    esac
  done <"$file"
}

# The profile in force, unless it is ours or TuneD does not run.
load_tuned() {
  local name
  TUNED_PROFILE='' _TUNED_CLAIMS=()
  running tuned && read_file "$ROOT/etc/tuned/active_profile" || return 0
  for name in $REPLY; do
    [ "$name" != tickwire ] || continue
    TUNED_PROFILE+="${TUNED_PROFILE:+ }$name"
    _tuned_read "$name" 0
  done
}

tuned_owns() {  # INDEX
  local claim
  for claim in "${_TUNED_CLAIMS[@]}"; do
    # shellcheck disable=SC2053  # A pattern: TuneD's sysfs paths have stars.
    if [ "$claim" = "group ${K_GROUP[$1]}" ] || [[ "path ${K_TARGET[$1]}" == $claim ]]; then return 0; fi
  done
  return 1
}

# -------------------------------------------------------------------------------------- what else to know

# What only the boot line can say for these cores. Isolation from the scheduler is left out where a
# partition does it.
boot_words() {
  local engine rest flags=managed_irq,domain words key size count part pages
  set_to_list "$EC"
  engine="$REPLY"
  set_to_list "$H"
  rest="$REPLY"
  if [ "${ENV[ISOLATE]}" = partition ]; then flags=managed_irq; fi
  words="isolcpus=$flags,$engine"
  # The control plane sleeps and wakes: its cores keep their tick.
  set_to_list "$E"
  if [ -e "$ROOT/sys/devices/system/cpu/nohz_full" ]; then words+=" nohz_full=$REPLY"; fi
  words+=" rcu_nocbs=$REPLY irqaffinity=$rest"
  for key in HUGE_PAGES_2M:2M HUGE_PAGES_1G:1G; do
    size="${key#*:}" count="${ENV[${key%:*}]}"
    [ -n "$count" ] || continue
    if [[ "$count" != *:* ]]; then
      pages=
      for part in "${NODES[@]}"; do pages+="${pages:+,}$part:$count"; done
      count="${pages:-$count}"
    fi
    words+=" hugepagesz=$size hugepages=$count"
  done
  REPLY="$words"
}


# Five kinds of isolation, which are often taken for one.
print_isolation() {
  local text='' domain tick list
  cpus_of_file /sys/devices/system/cpu/isolated
  domain="$REPLY"
  cpus_of_file /sys/fs/cgroup/cpuset.cpus.isolated
  set_union "$domain" "$REPLY"
  domain="$REPLY"
  cpus_of_file /sys/devices/system/cpu/nohz_full
  tick="$REPLY"
  _says domain "$domain"
  _says tick "$tick"
  boot_cpus rcu_nocbs
  set_union "$REPLY" "$tick"
  _says RCU "$REPLY"
  list=
  if read_file "$ROOT/proc/cmdline" && [[ " $REPLY " =~ \ isolcpus=[a-z_,]*managed_irq ]]; then
    boot_cpus isolcpus
    list="$REPLY"
  fi
  _says "managed interrupts" "$list"
  list=
  if read_file "$ROOT/sys/devices/virtual/workqueue/cpumask" && mask_to_set "$REPLY"; then
    set_minus "$E" "$REPLY"
    list="$REPLY"
  fi
  _says "unbound work" "$list"
  set_to_list "$E"
  say "# isolation of CPUs $REPLY now: ${text# }"
}
_says() {  # NAME SET: into the caller's text
  local word=no
  set_minus "$E" "$2"
  if [ -z "$REPLY" ]; then word=yes; elif [ "$REPLY" != "$E" ]; then word="not on $REPLY"; fi
  text+="${text:+,} $1 $word"
}

# Clocks are read and never set: who disciplines them is not ours to choose.
print_clocks() {
  local source='?' text age
  local -a fields
  if read_file "$ROOT/sys/devices/system/clocksource/clocksource0/current_clocksource"; then source="$REPLY"; fi
  say "# clock source: $source"
  case "$source" in
    tsc | kvm-clock | arch_sys_counter | '?') ;;
    *) notice "clock source $source is slow to read: each time stamp costs microseconds (wanted: tsc)" ;;
  esac
  if have chronyc && text="$(timeout 2 chronyc -c -n tracking 2>/dev/null)"; then
    IFS=, read -ra fields <<<"$text"
    if [[ "${fields[3]:-}" =~ ^([0-9]+) ]]; then
      age=$(($(date +%s) - BASH_REMATCH[1]))
      say "# chrony: system clock ${fields[4]} s off UTC, last update $age s ago, reference ${fields[1]:-${fields[0]}}"
    fi
  fi
  if have pmc && text="$(timeout 2 pmc -u -b 0 'GET TIME_STATUS_NP' 2>/dev/null)"; then
    local offset='' ingress='' word value
    while read -r word value; do
      case "$word" in master_offset) offset="$value" ;; ingress_time) ingress="$value" ;; esac
    done <<<"$text"
    if [[ "$offset" =~ ^-?[0-9]+$ && "$ingress" =~ ^[0-9]+$ ]] && [ "$ingress" -gt 0 ]; then
      # PTP counts TAI seconds, some 37 ahead of UTC.
      age=$(($(date +%s) + 37 - ingress / 1000000000))
      say "# PTP: $offset ns off the master, last message about $age s ago"
    fi
  fi
}

# Threads of one core share its units: a sibling at work is noise that no setting removes.
check_siblings() {
  local cpu siblings
  for cpu in $E; do
    cpus_of_file "/sys/devices/system/cpu/cpu$cpu/topology/thread_siblings_list"
    siblings="$REPLY"
    set_minus "$siblings" "$EC"
    if [ -n "$REPLY" ]; then
      notice "CPU $cpu shares its core with CPU $REPLY, which is not the engine's: give both to the engine and" \
        "leave one idle, or take it offline"
    fi
  done
}
