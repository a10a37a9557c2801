# RAUC, plain bundle with a tar.gz, slot ext4 on a loop device
# needs: rauc=rauc mksquashfs=squashfs-tools openssl=openssl curl=curl dbus-daemon=dbus-daemon losetup=mount mkfs.ext4=e2fsprogs
# root
# durable: by RAUC, which unmounts the slot
# Its verity bundles need device mapper, and its streaming needs nbd. The service runs
# before the measured command, as on a device; what it uses meanwhile is counted. No boot
# loader is told about the slot.

version() { rauc --version; }

make() {
	cd "$DIR"
	openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -subj /CN=bench -days 3650 2>/dev/null
	mkdir content
	ln "$GZ" content/rootfs.tar.gz
	cat >content/manifest.raucm <<-END
		[update]
		compatible=bench
		version=1.1.0
		[bundle]
		format=plain
		[image.rootfs]
		filename=rootfs.tar.gz
	END
	rauc bundle --cert=cert.pem --key=key.pem --keyring=cert.pem content "$WWW/update.raucb" >make.log 2>&1 || { cat make.log; return 1; }
}

prepare() {
	cd "$DIR"
	mkdir "$TARGET/mount"
	truncate -s "$((SIZE * 3 / 2 + 67108864))" "$TARGET/slot0" "$TARGET/slot1"
	losetup -f --show "$TARGET/slot0" >loop0
	losetup -f --show "$TARGET/slot1" >loop1
	cat >system.conf <<-END
		[system]
		compatible=bench
		bootloader=noop
		mountprefix=$TARGET/mount
		statusfile=$TARGET/status
		bundle-formats=plain
		[keyring]
		path=$DIR/cert.pem
		[slot.rootfs.0]
		device=$(cat loop0)
		type=ext4
		bootname=A
		[slot.rootfs.1]
		device=$(cat loop1)
		type=ext4
		bootname=B
	END
	dbus-daemon --session --fork --print-address=3 --print-pid=4 3>bus 4>bus.pid 2>/dev/null
	export DBUS_SESSION_BUS_ADDRESS="$(cat bus)" DBUS_STARTER_BUS_TYPE=session
	rauc --conf=system.conf --override-boot-slot=A service >service.log 2>&1 &
	echo $! >pids
	i=0
	until rauc status >/dev/null 2>&1; do
		i=$((i + 1))
		[ $i -lt 100 ] || { cat service.log; return 1; }
		sleep 0.05
	done
}

install() {
	export DBUS_SESSION_BUS_ADDRESS="$(cat "$DIR/bus")" DBUS_STARTER_BUS_TYPE=session
	curl -sSf --cacert "$CA" -o "$TARGET/update.raucb" "$URL/update.raucb"
	rauc install "$TARGET/update.raucb"
	rm "$TARGET/update.raucb"
}

# detach ends what uses the disk.
detach() {
	cd "$DIR"
	for pid in $(cat pids bus.pid 2>/dev/null); do
		kill "$pid" 2>/dev/null || true
		while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
	done
	for loop in $(cat loop0 loop1 2>/dev/null); do losetup -d "$loop" || true; done
	rm -f pids bus.pid loop0 loop1
}

active() {
	mkdir -p "$DIR/slot"
	mount -o loop "$TARGET/slot1" "$DIR/slot"
	echo "$DIR/slot"
}

inactive() { umount "$DIR/slot" 2>/dev/null || true; }
