#!/bin/sh
# Chromium for the tests of the report: installed where that is possible, named as left out where it is not.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
  echo "Installing Chromium (Debian package) for the tests of the report"
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null && exit 0
fi
echo "Chromium is not here and cannot be installed without root: the tests marked 'browser' are left out."
