# Mender client, standalone, update module directory
# needs: mender=mender-client mender-artifact=mender-artifact jq=jq
# root
# durable: as Mender does it; it replaces the directory in place

version() { echo "mender-client $(mender --version | head -n 1 | cut -f 1)"; }

make() {
	cd "$DIR"
	echo "$TARGET/app" >dest_dir
	gzip -dc "$GZ" >update.tar
	mender-artifact write module-image -t bench -n release-1.1.0 -T directory -f dest_dir -f update.tar -o "$WWW/update.mender" --compression gzip >/dev/null
	rm update.tar
	echo "{\"ServerURL\":\"${URL%%/peers*}\",\"ServerCertificate\":\"$CA\",\"DeviceTypeFile\":\"$TARGET/data/device_type\"}" >mender.conf
	# Its path is compiled in. The mount is seen in the benchmark's namespace only.
	mkdir etc
	echo artifact_name=release-1.0.0 >etc/artifact_info
	mount --bind etc /etc/mender
}

prepare() {
	mkdir -p "$TARGET/app" "$TARGET/data"
	echo old >"$TARGET/app/edge-agent"
	echo device_type=bench >"$TARGET/data/device_type"
}

install() {
	mender --data "$TARGET/data" --config "$DIR/mender.conf" --no-syslog --log-level error install "$URL/update.mender"
	mender --data "$TARGET/data" --config "$DIR/mender.conf" --no-syslog --log-level error commit
}

active() { echo "$TARGET/app"; }
