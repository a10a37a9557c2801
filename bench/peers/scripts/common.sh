# What the peers share. Each script has the functions version, make, prepare and install,
# and may replace those here. They get:
#	TREE GZ ZST  the payload, and its tarballs
#	DIR          a directory of the peer's own
#	WWW URL CA   a directory, where the host serves it, and the host's certificate
#	TARGET       the directory to install in; its path is the same in each run
#	SIZE         the bytes of the payload

old_version() {
	mkdir -p "$TARGET/versions/1.0.0"
	ln -s versions/1.0.0 "$TARGET/current"
}

# detach ends what uses the disk, after the installation and before active.
detach() { :; }

# active prints the directory that is installed; inactive lets go of it.
active() { echo "$TARGET/current"; }
inactive() { :; }
