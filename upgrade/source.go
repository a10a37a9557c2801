package upgrade

import (
	"fmt"
	"strings"

	"github.com/bilbycast/edge-agent/release"
	"github.com/bilbycast/edge-agent/stage"
)

// Host returns the release host as the Source of v.
func (p *Pipeline) Host(v release.Version) stage.Source { return p.stager.Host(v) }

// Open returns the Source that what names: a directory, a tar file, the https
// URL of a directory with manifest.json, or a version, which the release host
// has. For a version, v is that one, and the release must be it.
func (p *Pipeline) Open(what string) (src stage.Source, v release.Version, err error) {
	if v, err = release.ParseVersion(what); err == nil {
		return p.Host(v), v, nil
	}
	if strings.HasPrefix(what, "https://") {
		return p.stager.HostAt(strings.TrimSuffix(strings.TrimSuffix(what, "/"+release.ManifestName), "/")), release.Version{}, nil
	}
	if src, err = stage.OpenSource(what); err != nil {
		err = fmt.Errorf("%w (give a directory, a tar file, an https URL or a version)", err)
	}
	return src, release.Version{}, err
}
