package main

import (
	"time"

	"github.com/dspgate/dspgate/envoy/xds"
	"github.com/dspgate/dspgate/registry/redisstore"
)

// sidecarConfig is the file of `dspgate sidecar`.
type sidecarConfig struct {
	// ID names this sidecar on the roll: stable over restarts, different on each. Needed.
	ID string `yaml:"id"`
	// Listen is where Envoy gets its configuration (ADS) and sends its access log:
	// unix:/path or host:port, of gRPC. Whoever reaches it can read the
	// configuration: prefer a socket. Needed.
	Listen string `yaml:"listen"`
	// ListenAuthz is where Envoy asks for decisions, unix:/path or host:port: the
	// authz address in envoy.sidecars. It costs less than half there of what it
	// costs on Listen, which serves them too. Default "": on Listen only.
	ListenAuthz string `yaml:"listen_authz"`
	// Debug is the address of /metrics, /healthz and /readyz. Default 127.0.0.1:9101.
	Debug string `yaml:"debug"`
	// Redis is where the register is.
	Redis redisstore.Config `yaml:"redis"`
	// RegisterKeyFile holds the key of the register's MACs, the same for every
	// control plane and sidecar: at least 32 bytes. Needed.
	RegisterKeyFile string `yaml:"register_key_file"`
	// SubjectKeyFile holds the key of the hashes that stand for people and
	// clients, the same for every sidecar: at least 32 bytes. Needed.
	SubjectKeyFile string `yaml:"subject_key_file"`
	// StateDir keeps the highest revision seen, so that a sidecar started again
	// refuses an emptied or older store. Needed.
	StateDir string `yaml:"state_dir"`
	// Lease is how long this sidecar may answer from its mirror after its last
	// successful poll was sent.
	Lease leaseConfig `yaml:"lease"`
	// Streams bounds the calls of streaming services that are open here at once.
	Streams streamsConfig `yaml:"streams"`
	// Limits bounds what is asked before it is known who asks; all other limits are
	// in the register.
	Limits limitsConfig `yaml:"limits"`
	// Issuers are the trusted token issuers. At least one is needed.
	Issuers []issuerConfig `yaml:"issuers"`
	// Admission stamps what this sidecar allows, for upstreams to verify.
	Admission admissionConfig `yaml:"admission"`
	// Watching counts what callers do, for the fleet's watcher.
	Watching watchingConfig `yaml:"watching"`
	// Shipping sends decisions and finished calls to whoever gathers logs.
	Shipping shippingConfig `yaml:"shipping"`
	// Envoy is the configuration this sidecar gives its Envoy.
	Envoy xds.Config `yaml:"envoy"`
	// ProblemBase starts the type of every problem, up to and including the last
	// slash. Default https://dspgate.example/problems/.
	ProblemBase string `yaml:"problem_base"`
	// RecordsKeep is how long decision records are kept. Default 24h.
	RecordsKeep time.Duration `yaml:"records_keep"`
	// Processors is GOMAXPROCS: one leaves the others to Envoy, whose filters cost
	// more than the decision, and costs less for each. Default 1.
	Processors int `yaml:"processors"`
	// HeapHeadroomMiB is how much garbage may gather before it is collected.
	// Default 24.
	HeapHeadroomMiB int `yaml:"heap_headroom_mib"`
}

// admissionConfig is the same on every sidecar of one Envoy.
type admissionConfig struct {
	// KeyFile holds the keys of the stamps, the same for every sidecar and
	// upstream: one a line in hex, the first signs. It is looked at again every
	// second. Default "": nothing is stamped, and a suspension is over for a service
	// only when Envoy has nothing more under way.
	KeyFile string `yaml:"key_file"`
	// Validity is how long an ALLOW may be acted upon, counted from the decision.
	// Beyond it Envoy and the upstream refuse with 503 admission-expired. The
	// control plane's drain must be at least this and the upstreams' skew. At most
	// 1s. Default 50ms.
	Validity time.Duration `yaml:"validity"`
}

type leaseConfig struct {
	// Short is for services of risk ratings 3 and 4. Default 2s.
	Short time.Duration `yaml:"short"`
	// Long is for ratings 1 and 2. Default 60s.
	Long time.Duration `yaml:"long"`
	// Poll is the longest time between two polls. Default 500ms.
	Poll time.Duration `yaml:"poll"`
}

type issuerConfig struct {
	// Issuer is the iss of its tokens, exactly.
	Issuer string `yaml:"issuer"`
	// JWKSURL or JWKSFile is where its keys are; exactly one.
	JWKSURL  string `yaml:"jwks_url"`
	JWKSFile string `yaml:"jwks_file"`
	// JWKSRefresh is how often the keys are looked at. Default 5m for a URL, 2s for a file.
	JWKSRefresh time.Duration `yaml:"jwks_refresh"`
	// JWKSMaxStale is how long the last good keys hold when looking fails. Default 12h.
	JWKSMaxStale time.Duration `yaml:"jwks_max_stale"`
	// CAFile holds the authorities to trust for the URL instead of the system's.
	CAFile string `yaml:"ca_file"`
	// AllowHTTPLoopback admits plain http to a literal loopback address. For the demo.
	AllowHTTPLoopback bool `yaml:"allow_http_loopback"`
	// Audiences: one of them must be in the token's aud.
	Audiences []string `yaml:"audiences"`
	// Algorithms its keys may be used with; asymmetric ones only.
	Algorithms []string `yaml:"algorithms"`
	// MaxLifetime caps exp − iat. Default and greatest 24h.
	MaxLifetime time.Duration `yaml:"max_lifetime"`
	// Skew is how far nbf and iat may lie in the future. Default 30s.
	Skew time.Duration `yaml:"skew"`
	// Subjects are further claims in which services may say the person or client
	// is found (a service's subject, in: claim).
	Subjects []string `yaml:"subjects"`
	// ExpirySkew is how long after exp a token still passes. Default none.
	ExpirySkew time.Duration `yaml:"expiry_skew"`
	// Claims names the claims of an issuer that uses others than the contract's.
	Claims claimNames `yaml:"claims"`
}

type claimNames struct {
	ClientID   string `yaml:"client_id"`
	ABN        string `yaml:"abn"`
	SoftwareID string `yaml:"software_id"`
	ClientABN  string `yaml:"client_abn"`
}

func defaultSidecarConfig() sidecarConfig {
	return sidecarConfig{
		Debug: "127.0.0.1:9101", Processors: 1, HeapHeadroomMiB: 24,
		Lease: leaseConfig{Short: 2 * time.Second, Long: 60 * time.Second, Poll: 500 * time.Millisecond},
	}
}
