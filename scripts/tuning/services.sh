#!/usr/bin/env bash
# Writes what a service manager needs to run the engine on the tuned host, and takes it away again.
#
#   services.sh [--env FILE] [--with systemd | tuned] [--install | --remove [--force]]
#
# Without --install or --remove it prints the files and writes nothing. They are made from host.env:
#
#   tickwire.slice            where the engine's processes live; the partition, if there is one
#   tickwire-tuning.service   apply.sh at start, revert.sh at stop
#   tickwire.service          the engine: CPU affinity, locked memory, out-of-memory protection, restarts
#
# --with tuned makes a TuneD profile named tickwire, which calls the same two scripts, instead of
# tickwire-tuning.service. The scripts are copied to /usr/local/lib/tickwire/tuning and host.env to
# /etc/tickwire/host.env: what runs as root must not lie where another user may write.
#
# --install starts and enables nothing and overwrites no file that is not ours. --remove deletes what was
# installed, except a file that somebody has edited since (--force deletes that too). A MANIFEST beside
# the scripts has their checksums.
#
#   --env FILE    what the host is like (default /etc/tickwire/host.env; see host.env.example)
#
# Exit code: 0 done; 1 a file could not be written; 2 refused, nothing was changed; 3 removed, except for
# files that somebody edited.
set -uo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
# shellcheck source-path=SCRIPTDIR source=lib/common.sh
. "$here/lib/common.sh"

readonly LIBRARY=/usr/local/lib/tickwire/tuning
readonly MANIFEST="$LIBRARY/MANIFEST"
env_file="$ROOT/etc/tickwire/host.env"
with=systemd
verb=print
force=
while [ $# -gt 0 ]; do
  case "$1" in
    --env | --with)
      [ $# -ge 2 ] || refuse "$1 needs a value; try --help"
      if [ "$1" = --env ]; then env_file="$2"; else with="$2"; fi
      shift
      ;;
    --install | --remove)
      [ "$verb" = print ] || refuse "--install and --remove say opposite things"
      verb="${1#--}"
      ;;
    --force) force=1 ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) refuse "unknown argument ${1@Q}; try --help" ;;
  esac
  shift
done
[ "$with" = systemd ] || [ "$with" = tuned ] || refuse "--with: expected systemd or tuned, found ${with@Q}"
[ -z "$force" ] || [ "$verb" = remove ] || refuse "--force goes with --remove"

# ------------------------------------------------------------------------------------------- the files

# Path below ROOT, its text; mode 644, or 755 where the text starts as a script does.
declare -a PATHS=()
declare -A TEXT=()
file() {  # PATH TEXT
  PATHS+=("$1")
  TEXT[$1]="$2"
}

make_files() {
  local apply="/bin/bash $LIBRARY/apply.sh --env /etc/tickwire/host.env --apply" revert="/bin/bash $LIBRARY/revert.sh"
  local units=/etc/systemd/system tuner=tickwire-tuning.service nodes cpus text name slice=

  # The engine's own threads pin themselves; everything else of it stays off their cores.
  set_to_list "${C:-$H}"
  cpus="$REPLY"
  nodes=
  if [ -e "$ROOT/sys/devices/system/node/node1" ]; then
    nodes="${NODES[*]}"
    nodes="${nodes// /,}"
  fi
  if [ "$with" = tuned ]; then tuner=tuned.service; fi

  text="# Made by services.sh from host.env.
[Unit]
Description=Processes of the Tickwire engine

[Slice]
# Nothing of it is ever swapped out, and the user-space out-of-memory killer looks elsewhere first.
MemorySwapMax=0
ManagedOOMPreference=avoid
"
  if [ -n "$C" ]; then
    set_to_list "$EC"
    text+="# The same set that apply.sh makes an isolated partition of.
AllowedCPUs=$REPLY
"
    # systemd makes the cgroup, and knows that it needs the cpuset controller; apply.sh isolates it.
    slice=$'Wants=tickwire.slice\nAfter=tickwire.slice\n'
  fi
  file "$units/tickwire.slice" "$text"

  if [ "$with" = systemd ]; then
    file "$units/tickwire-tuning.service" "# Made by services.sh from host.env.
[Unit]
Description=Host tuning for the Tickwire engine
Documentation=file:$LIBRARY/apply.sh
After=network.target irqbalance.service tuned.service
${slice}ConditionVirtualization=!container

[Service]
Type=oneshot
# Stays for the process that holds /dev/cpu_dma_latency, and for the way back at stop.
RemainAfterExit=yes
ExecStart=$apply
ExecStop=$revert
# revert.sh: all is back but for what somebody else has changed.
SuccessExitStatus=3
# It sets what only root may: /proc/sys, /sys, interrupts, network cards and cgroups. So ProtectKernelTunables,
# ProtectControlGroups, PrivateDevices and CapabilityBoundingSet are left out; what is left:
NoNewPrivileges=yes
PrivateTmp=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
SystemCallArchitectures=native
# Not full: the ban list of irqbalance is a file in /etc.
ProtectSystem=yes
# systemctl, ethtool and ip.
RestrictAddressFamilies=AF_UNIX AF_NETLINK AF_INET AF_INET6

[Install]
WantedBy=multi-user.target
"
  else
    local profile=/etc/tuned/tickwire
    if [ -d "$ROOT/etc/tuned/profiles" ]; then profile=/etc/tuned/profiles/tickwire; fi
    file "$profile/tuned.conf" "# Made by services.sh from host.env.
[main]
summary=Cores, interrupts, memory and network for the Tickwire engine, from /etc/tickwire/host.env

# One table of settings, one journal, one way back: the scripts', not a second copy of them here.
[script]
script=\${i:PROFILE_DIR}/tickwire.sh
"
    file "$profile/tickwire.sh" "#!/bin/bash
# Made by services.sh: what TuneD calls when it enters and leaves the profile.
case \"\$1\" in
  start) exec $apply ;;
  stop) exec $revert ;;
esac
"
  fi

  text="# Made by services.sh from host.env.
[Unit]
Description=Tickwire engine
Requires=$tuner
After=$tuner network-online.target
Wants=network-online.target
# A configuration that does not start gives up; a crash now and then does not.
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
Type=exec
User=${ENV[SERVICE_USER]}
Slice=tickwire.slice
ExecStart=${ENV[SERVICE_COMMAND]} run ${ENV[SERVICE_CONFIG]}
Restart=on-failure
RestartSec=1
# Ends in good order: drains, or says what it dropped.
KillSignal=SIGTERM
TimeoutStopSec=30
# Python and all threads without a core of their own; the others pin themselves.
CPUAffinity=$cpus
"
  if [ -n "$nodes" ]; then
    text+="# Memory, huge pages among it, from the node of the engine's cores.
NUMAPolicy=bind
NUMAMask=$nodes
"
  fi
  text+="# Buffers, rings and huge pages are locked at start.
LimitMEMLOCK=infinity
LimitNOFILE=65536
OOMScoreAdjust=-900
# A worker that runs out of memory is restarted by the engine, which goes on.
OOMPolicy=continue
"
  if [ "${ENV[REALTIME]}" = yes ]; then
    text+="# An engine thread may be SCHED_FIFO, so RestrictRealtime is left out.
LimitRTPRIO=50
"
  else
    text+="RestrictRealtime=yes
"
  fi
  text+="
# What it has no need of. No capability either: memory is locked, and cores are taken, by the limits above.
NoNewPrivileges=yes
CapabilityBoundingSet=
AmbientCapabilities=
PrivateTmp=yes
PrivateIPC=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
SystemCallArchitectures=native
# And seccomp, with which a worker gives up more than this.
SystemCallFilter=@system-service seccomp
SystemCallErrorNumber=EPERM
UMask=0027
# Not strict: recordings, JSON lines and latency logs go where the configuration says.
ProtectSystem=full
# Not yes: the program, its configuration and its models may be in a home.
ProtectHome=read-only
# PrivateDevices is left out: a model may run on a GPU.
DevicePolicy=closed
DeviceAllow=char-nvidia* rw
# Feeds, metrics and the control socket; by netlink the C library asks which addresses the host has.
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
# Left out, too:
# - PrivateNetwork, IPAddressDeny: the feeds come by the network, and host.env does not say from where.
# - PrivateUsers: the control socket asks whose user its peer is.
# - ProcSubset=pid: the report at start says of /proc/sys and /proc/cpuinfo how the host is tuned.
# - RemoveIPC: the statistics file stays in /dev/shm, so that it can be read after a death.
# - MemoryDenyWriteExecute: drivers of GPUs make code while they run.
"
  text+="
[Install]
WantedBy=multi-user.target
"
  file "$units/tickwire.service" "$text"

  for name in apply.sh revert.sh lib/common.sh lib/journal.sh lib/kinds.sh lib/knobs.sh lib/undo.sh; do
    read_file "$here/$name" || refuse "$here/$name is missing"
    file "$LIBRARY/$name" "$REPLY"$'\n'
  done
  # The user's own, where it is there already.
  if [ ! "$env_file" -ef "$ROOT/etc/tickwire/host.env" ]; then
    read_file "$env_file"
    file /etc/tickwire/host.env "$REPLY"$'\n'
  fi
}

# --------------------------------------------------------------------------------------- what is installed

declare -A INSTALLED=()  # Path below ROOT: its checksum when we wrote it.
load_manifest() {
  local sum path
  [ -r "$ROOT$MANIFEST" ] || return 0
  while read -r sum path; do
    [[ "$sum" =~ ^[0-9a-f]{64}$ && "$path" = /* ]] || refuse "$ROOT$MANIFEST: not a line of ours: $sum $path"
    INSTALLED[$path]="$sum"
  done <"$ROOT$MANIFEST"
}

checksum() { REPLY="$(sha256sum <"$1")" && REPLY="${REPLY%% *}"; }  # FILE

as_installed() { checksum "$ROOT$1" && [ "$REPLY" = "${INSTALLED[$1]:-}" ]; }  # PATH

reload() { if have systemctl; then systemctl daemon-reload || warn "systemctl daemon-reload failed"; fi; }

# By one rename, so that nobody reads half a file.
put_file() {  # PATH TEXT
  local mode=644
  case "$2" in '#!'*) mode=755 ;; esac
  { mkdir -p -- "$ROOT${1%/*}" && printf '%s' "$2" >"$ROOT$1.new" && chmod "$mode" -- "$ROOT$1.new" &&
    mv -- "$ROOT$1.new" "$ROOT$1"; } 2>/dev/null || { warn "cannot write $ROOT$1"; exit "$EXIT_FAILED"; }
}

install_files() {
  local path manifest=''
  for path in "${PATHS[@]}"; do
    if [ -e "$ROOT$path" ] && ! as_installed "$path"; then
      refuse "$ROOT$path is there and not as we wrote it: move it away, or edit host.env instead"
    fi
  done
  for path in "${!INSTALLED[@]}"; do
    [ -n "${TEXT[$path]+again}" ] || refuse "$path was installed with other settings: run services.sh --remove first"
  done
  # First the list: what a kill leaves half done, --remove still finds.
  for path in "${PATHS[@]}"; do
    REPLY="$(printf '%s' "${TEXT[$path]}" | sha256sum)"
    manifest+="${REPLY%% *} $path"$'\n'
  done
  put_file "$MANIFEST" "$manifest"
  for path in "${PATHS[@]}"; do
    put_file "$path" "${TEXT[$path]}"
    say "wrote $ROOT$path"
  done
  reload
  if ! id -- "${ENV[SERVICE_USER]}" >/dev/null 2>&1; then
    say "# first: useradd --system --no-create-home ${ENV[SERVICE_USER]}"
  fi
  if [ "$with" = systemd ]; then
    say "# to start it, and at each boot: systemctl enable --now tickwire-tuning.service tickwire.service"
  else
    say "# to start it, and at each boot: tuned-adm profile tickwire && systemctl enable --now tickwire.service"
  fi
  say "# to take it away: services.sh --remove"
}

remove_files() {
  local path kept=0
  if [ "${#INSTALLED[@]}" -eq 0 ]; then
    say "# nothing is installed"
    return
  fi
  if have systemctl; then
    for path in tickwire.service tickwire-tuning.service; do
      if systemctl is-active --quiet "$path"; then
        refuse "$path runs: systemctl disable --now tickwire.service tickwire-tuning.service"
      fi
    done
  fi
  if read_file "$ROOT/etc/tuned/active_profile" && [ "$REPLY" = tickwire ]; then
    refuse "TuneD's active profile is tickwire: choose another, or tuned-adm off"
  fi
  for path in "${!INSTALLED[@]}"; do
    [ -e "$ROOT$path" ] || continue
    if [ -n "$force" ] || as_installed "$path"; then
      rm -f -- "$ROOT$path" || { warn "cannot remove $ROOT$path"; exit "$EXIT_FAILED"; }
      say "removed $ROOT$path"
    else
      warn "$ROOT$path was edited and stays; --force removes it"
      kept=$((kept + 1))
    fi
  done
  if [ "$kept" -eq 0 ]; then rm -f -- "$ROOT$MANIFEST"; fi
  for path in "$LIBRARY/lib" "$LIBRARY" "${LIBRARY%/*}" /etc/tuned/tickwire /etc/tuned/profiles/tickwire /etc/tickwire; do
    if [ -d "$ROOT$path" ]; then rmdir -- "$ROOT$path" 2>/dev/null || true; fi
  done
  reload
  if [ "$kept" -gt 0 ]; then exit "$EXIT_CHANGED"; fi
}

if [ "$verb" != print ] && [ -z "$ROOT" ] && [ "$(id -u)" -ne 0 ]; then refuse "not root: --$verb needs it"; fi
load_manifest
if [ "$verb" = remove ]; then
  remove_files
  exit 0
fi
load_env "$env_file"
load_cpus
check_cpus
make_files
if [ "$verb" = install ]; then
  install_files
  exit 0
fi
for path in "${PATHS[@]}"; do
  case "$path" in
    "$LIBRARY"/* | /etc/tickwire/host.env) say "# $path: a copy" ;;
    *) say "# ---- $path"; say "${TEXT[$path]}" ;;
  esac
done
say "# --install writes these"
