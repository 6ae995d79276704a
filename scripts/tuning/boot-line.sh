#!/usr/bin/env bash
# Prints what the kernel's boot line should say for the engine's cores, and how to put it there.
#
#   boot-line.sh [--env FILE]
#
# It edits nothing: a boot line that is wrong keeps a machine from starting. The first line of the output
# that is no comment is the whole of it.
#
#   --env FILE    what the host is like (default /etc/tickwire/host.env; see host.env.example)
#
# Exit code: 0 printed; 2 refused: usage, host.env, or cores that cannot be given away.
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
while [ $# -gt 0 ]; do
  case "$1" in
    --env)
      [ $# -ge 2 ] || refuse "--env needs a value; try --help"
      env_file="$2"
      shift
      ;;
    -h | --help) usage "${BASH_SOURCE[0]}"; exit 0 ;;
    *) refuse "unknown argument ${1@Q}; try --help" ;;
  esac
  shift
done

load_env "$env_file"
load_cpus
check_cpus
boot_words
words="$REPLY"

missing=
read_file "$ROOT/proc/cmdline" || true
for word in $words; do
  case " $REPLY " in *" $word "*) ;; *) missing+=" $word" ;; esac
done

say "$words"
say "#"
say "# isolcpus      no task is balanced onto these cores, and no managed interrupt where it can be helped"
say "# nohz_full     no timer tick while one thread runs there"
say "# rcu_nocbs     their RCU callbacks run elsewhere"
say "# irqaffinity   where interrupts go from the start: some move only with the next one"
if [[ "$words" = *hugepages=* ]]; then
  say "# hugepages     reserved before memory is in pieces, on the node named"
  if [[ "$words" = *hugepages=*:* ]] && ! kernel_at_least 5 16; then
    say "#               this kernel is older than 5.16: it knows no node:count and spreads a plain count over all"
    say "#               nodes. Leave it out, and let apply.sh reserve them right after boot"
  fi
fi
if [ "${ENV[ISOLATE]}" = partition ]; then
  say "# The scheduler is left to the partition that apply.sh makes: undone without a reboot, as isolcpus is not."
fi
if [[ "$words" != *nohz_full=* ]]; then
  say "# nohz_full is left out: this kernel is built without it."
fi
if [ -z "$missing" ]; then say "# The running kernel was started with all of it."; fi
say "#"

family=
for file in "$ROOT/etc/os-release" "$ROOT/usr/lib/os-release"; do
  [ -r "$file" ] || continue
  while IFS='=' read -r key value; do
    case "$key" in ID | ID_LIKE) family+=" ${value//[\"\']/}" ;; esac
  done <"$file"
  break
done

case "$family " in
  *' debian '* | *' ubuntu '*)
    say "# To install (Debian, Ubuntu), as root, then reboot:"
    say "printf '%s\\n' 'GRUB_CMDLINE_LINUX_DEFAULT=\"\$GRUB_CMDLINE_LINUX_DEFAULT $words\"' > /etc/default/grub.d/90-tickwire.cfg"
    say "update-grub"
    say "# To remove:"
    say "# rm /etc/default/grub.d/90-tickwire.cfg && update-grub"
    ;;
  *' fedora '* | *' rhel '* | *' centos '*)
    say "# To install (Fedora, RHEL and like), as root, then reboot:"
    say "grubby --update-kernel=ALL --args='$words'"
    say "# To remove:"
    say "# grubby --update-kernel=ALL --remove-args='$words'"
    ;;
  *' suse '* | *' opensuse '* | *' sles '*)
    say "# To install (SUSE): add it to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, as root, then"
    say "grub2-mkconfig -o /boot/grub2/grub.cfg"
    say "# and reboot. To remove: take it out there and run the same again."
    ;;
  *' arch '*)
    say "# To install (Arch): with GRUB, add it to GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub, as root, then"
    say "grub-mkconfig -o /boot/grub/grub.cfg"
    say "# With systemd-boot, add it to the options line of /boot/loader/entries/*.conf, or to /etc/kernel/cmdline"
    say "# for unified images. Then reboot. To remove: take it out there again."
    ;;
  *)
    say "# To install: this distribution is not one we know (${family:- no os-release}). Add it where your boot"
    say "# loader keeps the kernel's parameters: with GRUB, GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub and"
    say "# then grub-mkconfig or grub2-mkconfig; then reboot. To remove: take it out there again."
    ;;
esac
say "# After the reboot: cat /proc/cmdline, and apply.sh says of each kind of isolation whether it is there."
