package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bilbycast/edge-agent/manager-sim/api"
	"github.com/bilbycast/edge-agent/release"
	"github.com/rs/zerolog"
)

const (
	// cacheLife is how long a list of releases is kept.
	cacheLife = 5 * time.Minute
	// maxCached is how many lists are kept.
	maxCached = 1000
	// fullList is the length from which a list may lack older releases.
	fullList = 10
)

// Catalogue knows which releases are published, from lists that it keeps for five
// minutes.
type Catalogue struct {
	list func(ctx context.Context, deviceType, channel string) ([]api.Release, error)
	// manifest is Config.Manifest.
	manifest func(ctx context.Context, deviceType, channel, version string) ([]byte, error)
	log      zerolog.Logger

	mu   sync.Mutex
	kept map[[2]string]cachedList
}

type cachedList struct {
	at   time.Time
	list []api.Release
}

func newCatalogue(list func(ctx context.Context, deviceType, channel string) ([]api.Release, error),
	manifest func(ctx context.Context, deviceType, channel, version string) ([]byte, error), log zerolog.Logger) *Catalogue {
	return &Catalogue{list: list, manifest: manifest, log: log, kept: make(map[[2]string]cachedList)}
}

// Releases returns what is published for a device type on a channel, newest first.
func (c *Catalogue) Releases(ctx context.Context, deviceType, channel string) ([]api.Release, error) {
	return c.atMost(ctx, deviceType, channel, cacheLife)
}

// atMost is Releases with a list of at most that age.
func (c *Catalogue) atMost(ctx context.Context, deviceType, channel string, age time.Duration) ([]api.Release, error) {
	key := [2]string{deviceType, channel}
	c.mu.Lock()
	l, ok := c.kept[key]
	c.mu.Unlock()
	if ok && time.Since(l.at) <= age {
		return l.list, nil
	}
	l = cachedList{at: time.Now(), list: []api.Release{}}
	if c.list != nil {
		list, err := c.list(ctx, deviceType, channel)
		if err != nil {
			return nil, err
		}
		l.list = append(l.list, list...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= maxCached {
		clear(c.kept)
	}
	c.kept[key] = l
	return l.list, nil
}

// Refusal returns why a version cannot be requested because it is not published for the
// device type on the channel. It returns nil if it is published, or if that is not known.
func (c *Catalogue) Refusal(ctx context.Context, deviceType, channel, version string) *api.NotUpgradable {
	if c.list == nil {
		return nil
	}
	v, err := release.ParseVersion(version)
	if err != nil {
		return nil
	}
	for _, age := range []time.Duration{cacheLife, time.Second} { // it may be a minute old
		list, err := c.atMost(ctx, deviceType, channel, age)
		if err != nil {
			c.log.Warn().Err(err).Msg("releases cannot be listed, version not checked")
			return nil
		}
		if slices.ContainsFunc(list, func(r api.Release) bool { return r.Version == version }) {
			return nil
		}
		if len(list) < fullList {
			continue
		}
		if oldest, err := release.ParseVersion(list[len(list)-1].Version); err == nil && v.Compare(oldest) < 0 {
			return nil
		}
	}
	list, err := c.Releases(ctx, deviceType, channel)
	if err != nil {
		return nil
	}
	names := make([]string, len(list))
	for i, r := range list {
		names[i] = r.Version
	}
	f := &api.NotUpgradable{Code: api.CodeNotPublished, Reason: fmt.Sprintf("%s is not published for the device type %s on the channel %s.", version, deviceType, channel),
		Remedy: "Published there: " + strings.Join(names, ", ") + "."}
	if len(names) == 0 {
		f.Remedy = "Nothing is published there yet."
	}
	return f
}
