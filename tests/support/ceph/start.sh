#!/usr/bin/env bash
# One Ceph gateway (RADOS Gateway), a real S3 service, from Debian's own packages: unpacked, not installed; all in memory.
#
#   start.sh FOLDER PORT MONITOR_PORT     FOLDER/root keeps the unpacked packages for the next time (70 MB to fetch)
#   stop.sh FOLDER
#
# Needs apt-get, dpkg and curl on Debian 12; no root. Listens on 127.0.0.1 only. Keys: test, testsecret.
set -euo pipefail

folder=$(mkdir -p "$1" && cd "$1" && pwd)
port=$2
monitor=127.0.0.1:$3
fsid=11111111-2222-3333-4444-555555555555
root=$folder/root
run=$folder/run
trap 'echo "line $LINENO failed; see $run" >&2' ERR

if [ ! -e "$root/complete" ]; then
  rm -rf "$root" "$folder/deb"
  mkdir -p "$root" "$folder/deb"
  cd "$folder/deb"
  names=$(apt-get install --simulate --no-install-recommends ceph-mon ceph-osd ceph-common radosgw | awk '/^Inst/ {print $2}')
  apt-get download $names >/dev/null
  for package in *.deb; do dpkg -x "$package" "$root"; done
  rm -rf "$folder/deb"
  touch "$root/complete"
fi

libraries=$(echo "$root"/usr/lib/*-linux-gnu)
export LD_LIBRARY_PATH=$libraries:$libraries/ceph:$root/lib/${libraries##*/}
export PYTHONPATH=$root/usr/lib/python3/dist-packages
export PATH=$root/usr/bin:$root/usr/sbin:$PATH
export CEPH_CONF=$run/ceph.conf

rm -rf "$run"
mkdir -p "$run/mon" "$run/osd"
cd "$run"
cat >ceph.conf <<CONF
[global]
fsid = $fsid
mon host = [v1:$monitor/0]
mon initial members = a
mon data = $run/mon
mon allow pool size one = true
auth cluster required = none
auth service required = none
auth client required = none
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr2 = false
admin socket = $run/\$name.asok
pid file = $run/\$name.pid
log file = $run/\$name.log
mon cluster log file = $run/cluster.log
run dir = $run
plugin dir = $libraries/ceph
erasure code dir = $libraries/ceph/erasure-code
osd class dir = $libraries/rados-classes
osd data = $run/osd
osd objectstore = memstore
memstore device bytes = 1073741824
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd crush chooseleaf type = 0
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:$port
CONF

monmaptool --create --addv a "[v1:$monitor/0]" --fsid $fsid monmap >out
ceph-mon --mkfs --id a --monmap monmap >>out 2>&1
ceph-mon --id a >>out 2>&1
uuid=$(cat /proc/sys/kernel/random/uuid)
timeout 60 ceph osd new "$uuid" >>out 2>&1
ceph-osd --id 0 --mkfs --osd-uuid "$uuid" >>out 2>&1
for attempt in {1..10}; do  # it may speak to the monitor before it knows its name ("wrong fsid")
  ceph-osd --id 0 >>out 2>&1 && break
  [ "$attempt" -lt 10 ]
  sleep 1
done
timeout 120 radosgw-admin user create --uid=test --display-name=test --access-key=test --secret-key=testsecret >>out 2>&1
radosgw --name client.rgw >>out 2>&1
curl --silent --output /dev/null --retry 60 --retry-delay 1 --retry-connrefused --max-time 90 "http://127.0.0.1:$port/"
