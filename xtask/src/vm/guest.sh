#!/bin/sh
# The guest's first process on the machine's files: what a system's start does, then the script.
# The second serial line carries what the script says, and last how it ended.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t tmpfs tmpfs /run
mkdir -m 1777 /run/tmp
export TMPDIR=/run/tmp
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
for link in fd: stdin:/0 stdout:/1 stderr:/2; do
    ln -sf "/proc/self/fd${link#*:}" "/dev/${link%%:*}"
done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
ip link set lo up
/bin/sh /script </dev/null >/dev/ttyS1 2>&1
echo "guest ended with $?" >/dev/ttyS1
sync
echo o >/proc/sysrq-trigger
sleep 60
