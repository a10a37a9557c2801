// Command limits does one part of an upgrade alone, or emulates the existing agent.
//
//	limits transfer URL CA      reads a file from the host, and drops it
//	limits sha256 FILE          digests a file
//	limits gunzip FILE          decompresses it as the agent does, and drops the result
//	limits unzstd FILE          the same, for zstd
//	limits write FROM TO        writes the files of a tree to a new directory, and syncs each
//	limits existing URL CA DIR  holds the tarball in memory, extracts it, and syncs nothing
//
// It is a measure, and installs nothing that a device may run: existing keeps no promise.
package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"

	"github.com/bilbycast/edge-agent/internal/inflate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "limits:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	want := map[string]int{"transfer": 3, "sha256": 2, "gunzip": 2, "unzstd": 2, "write": 3, "existing": 4}
	if len(args) == 0 || want[args[0]] != len(args) {
		return errors.New("usage: limits transfer URL CA | sha256 FILE | gunzip FILE | unzstd FILE | write FROM TO | existing URL CA DIR")
	}
	switch args[0] {
	case "transfer":
		return fetch(args[1], args[2], io.Discard)
	case "sha256":
		return read(args[1], func(r io.Reader) error {
			_, err := io.Copy(sha256.New(), onlyReader{r})
			return err
		})
	case "gunzip":
		return read(args[1], func(r io.Reader) error {
			z, err := inflate.NewReader(bufio.NewReaderSize(r, 64<<10))
			if err != nil {
				return err
			}
			_, err = io.Copy(io.Discard, z)
			return err
		})
	case "unzstd":
		return read(args[1], func(r io.Reader) error {
			z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
			if err != nil {
				return err
			}
			defer z.Close()
			_, err = io.Copy(io.Discard, z)
			return err
		})
	case "write":
		return write(args[1], args[2])
	default:
		return existing(args[1], args[2], args[3])
	}
}

// onlyReader hides the other methods of a file, so that it is read in pieces.
type onlyReader struct{ io.Reader }

func read(name string, use func(io.Reader) error) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return use(f)
}

func fetch(url, ca string, to io.Writer) error {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	res, err := client.Get(url)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, res.Status)
	}
	if memory, ok := to.(*bytes.Buffer); ok {
		memory.Grow(int(res.ContentLength) + bytes.MinRead) // it grows by doubling otherwise
	}
	_, err = io.Copy(to, res.Body)
	return err
}

// write copies a tree file by file, and syncs each file and directory once.
func write(from, to string) error {
	var dirs []string
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, rel)
		if d.IsDir() {
			dirs = append(dirs, target)
			return os.MkdirAll(target, 0o755)
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.Create(target)
		if err != nil {
			return err
		}
		// As from an archive: the kernel must not copy from file to file by itself.
		_, err = io.CopyBuffer(struct{ io.Writer }{out}, onlyReader{in}, make([]byte, 1<<20))
		return errors.Join(err, out.Sync(), out.Close())
	})
	if err != nil {
		return err
	}
	for _, d := range dirs {
		f, err := os.Open(d)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// existing upgrades as the existing agent does.
func existing(url, ca, dir string) error {
	var tarball bytes.Buffer
	if err := fetch(url, ca, &tarball); err != nil {
		return err
	}
	sha256.Sum256(tarball.Bytes())
	z, err := gzip.NewReader(&tarball)
	if err != nil {
		return err
	}
	to := filepath.Join(dir, "installed", "1.1.0")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		path := filepath.Join(to, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			if err := os.MkdirAll(path, 0o755); err != nil {
				return err
			}
			continue
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fs.FileMode(h.Mode))
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	link := filepath.Join(dir, "running")
	if err := os.Symlink("installed/1.1.0", link+".new"); err != nil {
		return err
	}
	return os.Rename(link+".new", link)
}
