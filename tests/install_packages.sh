#!/bin/sh
# Debian packages that some tests need: installed where that is possible, and named where it is not.
PATH=$PATH:/usr/sbin:/sbin
missing=""
kinds=""

need() { # kind of tests, package, a command that it brings
  command -v "$3" >/dev/null && return
  missing="$missing $2"
  case "$kinds " in *" $1 "*) ;; *) kinds="$kinds $1" ;; esac
}

need browser chromium chromium
need slurm munge munged
need slurm mariadb-server mariadbd
need slurm slurmdbd slurmdbd
need slurm slurmctld slurmctld
need slurm slurmd slurmd
need slurm slurm-client squeue
need shellcheck shellcheck shellcheck
[ -z "$missing" ] && exit 0

leave_out() {
  echo "$1:$missing. Left out are the tests that need:$kinds"
  exit 0
}

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  leave_out "Not here, and only root of a Debian can install them"
fi
echo "Installing Debian packages for the tests:$missing"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  # The tests start daemons of their own: those of the system are not to be started.
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
services=""
for package in $missing; do
  case $package in
    munge | slurmdbd | slurmctld | slurmd) services="$services $package" ;;
    mariadb-server) services="$services mariadb" ;;
  esac
done
# shellcheck disable=SC2086 # lists of words
if apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
  # nor at the next boot
  [ -z "$services" ] || ! command -v systemctl >/dev/null || systemctl disable -q $services || true
else
  leave_out "Could not be installed"
fi
