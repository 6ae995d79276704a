# The journal: what was changed, written down before it is. Sourced, not run.
#
# One file, a line an entry, fields separated by tabs, the last one a dot (a torn line has none):
#
#   tickwire-tuning 1 BOOT_ID .                        the boot in which the run-time values were set
#   will N KIND TARGET OLD NEW .                       on disk before the write
#   done N NOW .                                       after the write and its read-back
#   back N .                                           the old value is there again
#
# Values are percent-encoded (an empty one is "%00"), "!" is a thing that was not there. A later apply adds to the journal:
# entries are a chain, and walking it backwards gives what was there before the first.
# shellcheck shell=bash

declare JOURNAL='' JOURNAL_BOOT='' BOOT_ID='' _TORN=''
declare -i ENTRIES=0
declare -a J_KIND=() J_TARGET=() J_OLD=() J_NEW=() J_NOW=() J_OPEN=()

encode() {  # TEXT
  local text="$1" out='' index char hex
  if [[ "$text" =~ ^[A-Za-z0-9._/:,=@+-]*$ ]]; then
    # No field is empty: reading runs of tabs would join them.
    REPLY="${text:-%00}"
    return
  fi
  for ((index = 0; index < ${#text}; index++)); do
    char="${text:index:1}"
    case "$char" in
      [A-Za-z0-9._/:,=@+-]) out+="$char" ;;
      *)
        printf -v hex '%02x' "'$char"
        # A byte above 127 comes out negative, with its sign in front.
        out+="%${hex: -2}"
        ;;
    esac
  done
  REPLY="$out"
}

decode() { printf -v REPLY '%b' "${1//%/\\x}"; }  # TEXT, of encode: it holds no backslash

read_boot_id() {
  read_file "$ROOT/proc/sys/kernel/random/boot_id" || refuse "cannot read the boot id in $ROOT/proc"
  BOOT_ID="$REPLY"
}

# Appends a line and has it on disk before returning. What cannot be written down is not done.
_journal_line() {  # FIELD ...
  local line
  printf -v line '%s\t' "$@"
  printf '%s.\n' "$line" >>"$JOURNAL" && sync -- "$JOURNAL"
}

# Reads what is there. Whole: a damaged journal is no reason to guess.
journal_load() {  # STATE_DIR
  local verb number rest kind target old new end line=0
  JOURNAL="$1/journal"
  ENTRIES=0 JOURNAL_BOOT='' _TORN=''
  J_KIND=() J_TARGET=() J_OLD=() J_NEW=() J_NOW=() J_OPEN=()
  [ -s "$JOURNAL" ] || return 0
  while IFS= read -r rest || { _TORN="$rest"; false; }; do
    line=$((line + 1))
    IFS=$'\t' read -r verb number kind target old new end <<<"$rest"
    case "$verb" in
      tickwire-tuning)
        [ "$number" = 1 ] && [ "$target" = . ] || journal_damaged "$line"
        JOURNAL_BOOT="$kind"
        ;;
      will)
        [ "$end" = . ] && [ "$number" = "$ENTRIES" ] || journal_damaged "$line"
        decode "$target"
        J_KIND[ENTRIES]="$kind" J_TARGET[ENTRIES]="$REPLY" J_OLD[ENTRIES]="$old" J_NEW[ENTRIES]="$new"
        J_NOW[ENTRIES]="$new" J_OPEN[ENTRIES]=1
        ENTRIES+=1
        ;;
      done)
        [ "$target" = . ] && [ -n "${J_KIND[number]:-}" ] || journal_damaged "$line"
        J_NOW[number]="$kind"
        ;;
      back)
        [ "$kind" = . ] && [ -n "${J_KIND[number]:-}" ] || journal_damaged "$line"
        J_OPEN[number]=
        ;;
      *) journal_damaged "$line" ;;
    esac
  done <"$JOURNAL"
  # A line without its end was being written when the machine stopped: what it announces was not done.
  # Without a first line nothing can have been announced.
  [ -n "$JOURNAL_BOOT" ] || [ "$ENTRIES" -eq 0 ] || journal_damaged 1
}

journal_damaged() {  # LINE
  warn "$JOURNAL:$1: not a line of a tuning journal; nothing was touched." \
    "Put the values back by hand from it, then remove it"
  exit "$EXIT_STUCK"
}

# Ready for entries: a new file, or the one of this boot.
journal_open() {
  if [ -n "$JOURNAL_BOOT" ]; then
    [ -z "$_TORN" ] || { truncate -s "-${#_TORN}" -- "$JOURNAL" && sync -- "$JOURNAL"; } || return 1
    _TORN=
    return 0
  fi
  rm -f -- "$JOURNAL"
  (umask 077 && : >"$JOURNAL") && _journal_line tickwire-tuning 1 "$BOOT_ID" && sync -- "${JOURNAL%/*}" || return 1
  JOURNAL_BOOT="$BOOT_ID"
}

journal_will() {  # KIND TARGET OLD NEW: OLD and NEW encoded
  encode "$2"
  _journal_line will "$ENTRIES" "$1" "$REPLY" "$3" "$4" || return 1
  J_KIND[ENTRIES]="$1" J_TARGET[ENTRIES]="$2" J_OLD[ENTRIES]="$3" J_NEW[ENTRIES]="$4"
  J_NOW[ENTRIES]="$4" J_OPEN[ENTRIES]=1
  ENTRIES+=1
}

journal_done() { J_NOW[$1]="$2"; _journal_line "done" "$1" "$2"; }  # N NOW
journal_back() { J_OPEN[$1]=; _journal_line back "$1"; }            # N

# Nothing of it is open any more.
journal_retire() {
  rm -f -- "$JOURNAL" && sync -- "${JOURNAL%/*}"
  ENTRIES=0 JOURNAL_BOOT=''
}

# ------------------------------------------------------------------------------------------- the lock

# A process, as nobody else can be it: its pid and the tick in which it started.
process_start() {  # PID
  local -a stat
  REPLY=
  { stat="$(<"/proc/$1/stat")"; } 2>/dev/null || return 1
  # The name before may hold spaces and brackets; the 20th field after it is the start.
  read -ra stat <<<"${stat##*) }"
  # A process that ended and was not waited for is none.
  [ "${stat[0]}" != Z ] || return 1
  REPLY="${stat[19]}"
}

process_lives() {  # PID:START
  process_start "${1%%:*}" && [ "$REPLY" = "${1#*:}" ]
}

# One apply or revert at a time. A lock whose owner is gone was left by a kill.
journal_lock() {  # STATE_DIR
  local lock="$1/lock" owner owner_now tries=0
  mkdir -p -- "$1" 2>/dev/null && [ -w "$1" ] || refuse "cannot write $1: run as root, or name another with --state DIR"
  process_start "$$"
  owner="$$:$REPLY:$BOOT_ID"
  until (set -o noclobber && printf '%s\n' "$owner" >"$lock") 2>/dev/null; do
    read_file "$lock" || true
    owner_now="$REPLY"
    if [ "${owner_now#*:*:}" = "$BOOT_ID" ] && process_lives "${owner_now%:*}"; then
      refuse "process ${owner_now%%:*} is tuning this host; wait until it is done"
    fi
    # A disk that is full has room for the name and none for the text.
    tries=$((tries + 1))
    [ "$tries" -le 20 ] || refuse "cannot write $lock: is the disk full?"
    # Of two that find it stale only one gets it.
    mv -- "$lock" "$lock.$$" 2>/dev/null && rm -f -- "$lock.$$"
  done
  # shellcheck disable=SC2064  # The path, expanded now.
  trap "rm -f -- ${lock@Q}" EXIT
}
