#!/bin/sh
# The guest's first process: stands on the machine's files, which it may read but not change.
busybox=/bin/busybox
fail() {
    echo "guest: $1"
    exit 1
}
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sys /sys
$busybox mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
    [ -e "$module" ] && { $busybox insmod "$module" || fail "no $module"; }
done
$busybox mount -t virtiofs -o ro machine /host || fail "no files of the machine"
# What the guest writes stays in its memory.
$busybox mount -t tmpfs -o size=75% layer /layer
$busybox mkdir /layer/upper /layer/work /layer/root
$busybox mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work overlay /layer/root ||
    fail "no layer above the files of the machine"
root=/layer/root
$busybox cp /guest /script $root/
$busybox mkdir -p $root/lib/modules
$busybox mount --bind "/host$($busybox cat /modules-at)" $root/lib/modules || fail "no modules"
for folder in proc sys dev; do
    $busybox mount --move /$folder $root/$folder
done
exec $busybox switch_root $root /guest
