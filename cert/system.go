package cert

import (
	"bytes"
	"crypto/x509"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/bilbycast/edge-agent/fsutil"
)

// The CA stores of Linux distributions, as package crypto/x509 knows them: the first file
// that is there, and every file of the directories.
var (
	storeFiles = []string{
		"/etc/ssl/certs/ca-certificates.crt",                // Debian, Arch
		"/etc/pki/tls/certs/ca-bundle.crt",                  // Fedora
		"/etc/ssl/ca-bundle.pem",                            // openSUSE
		"/etc/pki/tls/cacert.pem",                           // OpenELEC
		"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // RHEL
		"/etc/ssl/cert.pem",                                 // Alpine
	}
	storeDirs = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

// maxStoreFile bounds a file of a CA store, in bytes. Those of distributions have some
// 200 KiB.
const maxStoreFile = 4 << 20

// system is the CA store of the system as it was last read.
var system struct {
	sync.Mutex
	state string // of its files
	cas   *CAs
}

// System returns the authorities of the system's CA store as it is now. Go itself reads the
// store once in the life of a process. The store is parsed again only if a file of it
// changed. SSL_CERT_FILE and SSL_CERT_DIR stand for it, as for Go. If there is none, the
// authorities are those that Go finds.
func System() *CAs {
	system.Lock()
	defer system.Unlock()
	files, state := store()
	if system.cas != nil && state == system.state {
		return system.cas
	}
	cas := &CAs{x509.NewCertPool(), func() []byte {
		var all []byte
		readStore(files, func(text []byte) { all = append(all, text...) })
		return all
	}}
	// To parse the certificates of the first file takes as long as to read all the others.
	texts := make(chan []byte, len(files))
	found := false
	var parsed sync.WaitGroup
	parsed.Go(func() {
		for text := range texts {
			found = cas.pool.AppendCertsFromPEM(text) || found
		}
	})
	readStore(files, func(text []byte) { texts <- text })
	close(texts)
	if parsed.Wait(); !found {
		cas.pool = nil
	}
	system.state, system.cas = state, cas
	return cas
}

// store lists the files of the CA store, and describes their state.
func store() (files []string, state string) {
	single, dirs := storeFiles, storeDirs
	if file := os.Getenv("SSL_CERT_FILE"); file != "" {
		single = []string{file}
	}
	if dir := os.Getenv("SSL_CERT_DIR"); dir != "" {
		dirs = strings.Split(dir, ":")
	}
	var of []byte
	add := func(path string) bool {
		st, err := os.Stat(path)
		if err != nil || !st.Mode().IsRegular() {
			return false
		}
		files = append(files, path)
		of = strconv.AppendInt(append(append(of, path...), ' '), st.Size(), 10)
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			// A file that is replaced has another inode, or at least a later change.
			for _, n := range []int64{int64(sys.Ino), int64(sys.Ctim.Sec), int64(sys.Ctim.Nsec)} {
				of = strconv.AppendInt(append(of, ' '), n, 10)
			}
		}
		of = append(of, '\n')
		return true
	}
	for _, path := range single {
		if add(path) {
			break
		}
	}
	for _, dir := range dirs {
		entries, _ := os.ReadDir(dir) // a missing directory is the rule
		for _, e := range entries {
			path := filepath.Join(dir, e.Name())
			// Names by digest are links inside the directory.
			if to, err := os.Readlink(path); err == nil && !strings.Contains(to, "/") || len(files) > 0 && files[0] == path {
				continue
			}
			add(path)
		}
	}
	return files, string(of)
}

// readStore calls each with the certificates of every file that can be read, but those of earlier
// ones: to parse one takes time, and Debian has each in the first file, and again in one of its
// own.
func readStore(files []string, each func(text []byte)) {
	seen := map[string]bool{}
	for _, path := range files {
		b, err := fsutil.ReadLinked(path, maxStoreFile)
		if err != nil {
			continue
		}
		var text []byte
		for {
			before, after, ok := bytes.Cut(b, certificateEnd)
			if !ok { // what follows the last one, or one that is being written
				break
			}
			certificate := before[max(0, bytes.Index(before, certificateBegin)):]
			if !seen[string(certificate)] {
				seen[string(certificate)] = true
				if text == nil {
					text = make([]byte, 0, len(b)+1)
				}
				text = append(append(append(text, certificate...), certificateEnd...), '\n')
			}
			b = after
		}
		if len(text) > 0 {
			each(text)
		}
	}
}

// The lines around a certificate in PEM.
var certificateBegin, certificateEnd = []byte("-----BEGIN CERTIFICATE-----"), []byte("-----END CERTIFICATE-----")
