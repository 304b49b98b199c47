#!/bin/busybox sh
# First process of the guest: mounts, modules, network, then one command agent per virtio-serial port.

/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs -o size=75% tmp /tmp
mount -t tmpfs run /run

for module in /modules/*.ko; do
    case "$module" in
    *null-blk*) insmod "$module" nr_devices=0 ;;
    *brd*) insmod "$module" rd_nr=2 rd_size=65536 ;;
    *) insmod "$module" ;;
    esac || echo "init: $module does not load"
done
mount -t configfs config /sys/kernel/config
mount -t ext4 -o ro /dev/vda /t
echo 'root:x:0:0::/tmp:/bin/sh' > /etc/passwd
echo '127.0.0.1 localhost' > /etc/hosts

# The guest shares parts of the loopback net with the machine: path N has 127.N.0.15 here, and
# 127.(N+2).0.1 is an address of the machine that is reached by that path alone.
ip link set lo up
ip route del local 127.0.0.0/8 dev lo table local
sysctl -qw net.ipv4.conf.all.route_localnet=1
for path in 1 2; do
    device=eth$((path - 1))
    ip link set "$device" up
    ip addr add "127.$path.0.15/24" dev "$device"
    ip route add "127.$((path + 2)).0.1" via "127.$path.0.2" dev "$device" src "127.$path.0.15"
done

# A request is one line: number, seconds allowed, script in base64. The answer is a line with number,
# exit status and length, then the output. "timeout" kills what takes longer.
agent() {
    name=$(basename "$1")
    while :; do
        while read -r number seconds script; do
            echo "$script" | base64 -d > "/run/$name.script"
            timeout -s KILL "$seconds" sh "/run/$name.script" > "/run/$name.output" 2>&1 < /dev/null
            status=$?
            echo "$number $status $(stat -c %s "/run/$name.output")"
            cat "/run/$name.output"
        done <> "$1" >&0
        sleep 1
    done
}

for port in /sys/class/virtio-ports/*; do
    agent "/dev/$(basename "$port")" &
done
while :; do
    wait
    sleep 1
done
