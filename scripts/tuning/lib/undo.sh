# Putting back what the journal says, the last entry first. Sourced, not run.
# shellcheck shell=bash

declare -i CHANGED=0 STUCK=0

_shown() { if [ "$1" = '!' ]; then REPLY="not there"; else REPLY="${1//$'\n'/ }"; fi; }

# Puts one entry back. Three values are compared: what was there, what we wrote, what is there now.
undo_entry() {  # INDEX MODE: keep, force or forget what others have changed
  local kind="${J_KIND[$1]}" target="${J_TARGET[$1]}" old new now current code=0 mine=''
  decode "${J_OLD[$1]}"; old="$REPLY"
  decode "${J_NEW[$1]}"; new="$REPLY"
  decode "${J_NOW[$1]}"; now="$REPLY"

  if [ "$JOURNAL_BOOT" != "$BOOT_ID" ] && [ "$kind" != irqbalance ]; then
    say "#   gone with the reboot: $target"
    journal_back "$1"
    return
  fi
  if [ "$kind" = hold ]; then
    if ! process_lives "$new"; then
      say "#   already ended: the process that held $target"
    elif hold_end "$new"; then
      say "kill ${new%%:*}  # held $target"
    else
      _stuck "$target: $WRITE_ERROR"
      return
    fi
    journal_back "$1"
    return
  fi

  kind_read "$kind" "$target" || code=$?
  current="$REPLY"
  if [ "$code" -eq 1 ]; then
    say "#   no longer here: $target"
    journal_back "$1"
    return
  elif [ "$code" -ne 0 ]; then
    _stuck "$target: cannot be read"
    return
  fi
  if [ "$kind" = irqbalance ]; then rm -f -- "$ROOT$target.tickwire-new"; fi
  if kind_same "$kind" "$current" "$old"; then
    journal_back "$1"
    return
  fi
  if kind_same "$kind" "$current" "$new" || kind_same "$kind" "$current" "$now"; then mine=1; fi
  # A kill may have come before the pool was as large as it got.
  if [ "$kind" = pages ] && [[ "$current$old$new" =~ ^[0-9]+$ ]] && [ "$current" -ge "$old" ] &&
    [ "$current" -le "$new" ]; then mine=1; fi
  if [ -z "$mine" ] && [ "$2" != force ]; then
    _shown "$current"; current="$REPLY"
    _shown "$new"; new="$REPLY"
    _shown "$old"
    if [ "$2" = forget ]; then
      say "#   left as somebody set it: $target is $current"
      journal_back "$1"
    else
      CHANGED+=1
      warn "$target: somebody changed it since: it was $REPLY, we set $new, it is $current now; left alone"
    fi
    return
  fi

  kind_command "$kind" "$target" "$old"
  say "$REPLY"
  if ! kind_write "$kind" "$target" "$old"; then
    now="$WRITE_ERROR"
    if kind_read "$kind" "$target" && kind_same "$kind" "$REPLY" "$old"; then
      # The file of a daemon that could not be restarted, for instance.
      warn "$target: is as it was, but: $now"
      journal_back "$1"
    else
      _stuck "$target: $now"
    fi
  elif ! kind_read "$kind" "$target" || ! kind_same "$kind" "$REPLY" "$old"; then
    _shown "$REPLY"; current="$REPLY"
    _shown "$old"
    _stuck "$target: wrote $REPLY, and it reads $current"
  else
    journal_back "$1"
    if [ "$kind" = pages ] && read_file "$ROOT${target%/*}/surplus_hugepages" && [ "$REPLY" -gt 0 ]; then
      say "#   $REPLY huge pages are in use, and go when they are released"
    fi
  fi
}

_stuck() { STUCK+=1; warn "could not be put back: $*"; }

# Every open entry from FIRST on, backwards. A journal with nothing open is removed.
undo_from() {  # FIRST MODE
  local -i index open=0
  CHANGED=0 STUCK=0
  for ((index = ENTRIES - 1; index >= $1; index--)); do
    if [ -n "${J_OPEN[index]}" ]; then undo_entry "$index" "$2"; fi
  done
  for ((index = 0; index < ENTRIES; index++)); do
    if [ -n "${J_OPEN[index]}" ]; then open+=1; fi
  done
  if [ "$open" -eq 0 ]; then journal_retire; fi
}
