package host_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bilbycast/edge-agent/bench/host"
)

// A link of 8 Mbit/s needs a second for each megabyte, also where the sender paused, and
// where several connections share it.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l host.Link
		l.SetRate(8_000_000)
		time.Sleep(time.Hour)
		l.SetRate(8_000_000)
		a, b := pair(t, &l), pair(t, &l)
		began := time.Now()
		done := make(chan error, 2)
		for _, c := range []net.Conn{a, b} {
			go func() {
				_, err := c.Write(make([]byte, 1_000_000))
				done <- err
			}()
		}
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(began); took < 1990*time.Millisecond || took > 2010*time.Millisecond {
			t.Errorf("2 MB took %v", took)
		}
		if l.Sent() != 2_000_000 {
			t.Errorf("%d bytes were counted", l.Sent())
		}
		l.SetRate(0)
		began = time.Now()
		if _, err := a.Write(make([]byte, 1_000_000)); err != nil || time.Since(began) != 0 {
			t.Errorf("without a limit: %v, %v", time.Since(began), err)
		}
	})
}

func TestCloseEndsAWrite(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l host.Link
		l.SetRate(8)
		c := pair(t, &l)
		done := make(chan error)
		go func() {
			_, err := c.Write(make([]byte, 1000))
			done <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-done; err == nil {
			t.Error("no error")
		}
	})
}

// pair returns a connection of the link whose other end reads everything.
func pair(t *testing.T, l *host.Link) net.Conn {
	here, there := net.Pipe()
	go io.Copy(io.Discard, there)
	c, err := l.Listen(&one{c: here}).Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); there.Close() })
	return c
}

type one struct {
	net.Listener
	c net.Conn
}

func (o *one) Accept() (net.Conn, error) { return o.c, nil }

func TestHost(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	data := bytes.Repeat([]byte("data"), 250_000)
	if err := os.MkdirAll(filepath.Join(dir, "www", "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "www", "a", "f.bin"), data, 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := host.Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(h.CA)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	get := func() *http.Response {
		t.Helper()
		res, err := client.Get(h.URL + "/a/f.bin")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return res
	}
	if got, err := io.ReadAll(get().Body); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if h.Served(".bin") != 1_000_000 || h.Served(".gz") != 0 || h.Sent() < 1_000_000 {
		t.Errorf("served %d and %d, sent %d", h.Served(".bin"), h.Served(".gz"), h.Sent())
	}

	h.Begin()
	if h.Served(".bin") != 0 || h.Sent() != 0 {
		t.Error("Begin forgets nothing")
	}
	held := h.Hold(".bin", 500_000)
	res := get()
	half := make([]byte, 500_000)
	if _, err := io.ReadFull(res.Body, half); err != nil {
		t.Fatal(err)
	}
	<-held
	if h.Served(".bin") != 500_000 {
		t.Errorf("%d bytes were sent at the hold", h.Served(".bin"))
	}
	res.Body.Close()
	h.Release()
	if got, err := io.ReadAll(get().Body); err != nil || !bytes.Equal(got, data) {
		t.Errorf("after the hold: %d bytes, %v", len(got), err)
	}
}
