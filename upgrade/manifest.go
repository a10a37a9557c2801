package upgrade

import "github.com/bilbycast/edge-agent/release"

// CheckManifest returns an error of the code release.ManifestChanged if a release of version v
// has another manifest than the one that a request names. An empty digest is not known, or
// accepts any.
func CheckManifest(v release.Version, has, want string) error {
	if has == "" || want == "" || has == want {
		return nil
	}
	return release.Errorf(release.ManifestChanged, "the manifest of %s has the SHA-256 %s, but the manager requested %s: the version was published again", v, has, want)
}
