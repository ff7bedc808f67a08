package federation

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tunesmith/internal/atomicfile"
)

// Files of a member's directory.
const (
	MemberFile = "member.json"
	RunFile    = "run.yaml"
	BrokerFile = "nats.conf" // of the server: who may publish what
	tokenFile  = "token"
	authority  = "ca.pem"
	certFile   = "cert.pem"
	keyFile    = "key.pem"
)

// Founding is what a new federation is made of.
type Founding struct {
	ID      string
	Address string // host:port that the clients reach the server at
	Clients []string
	Run     []byte // run file that all members share
	Valid   time.Duration
}

// memberFile is what a member knows about the federation.
type memberFile struct {
	Federation string            `json:"federation"`
	Name       string            `json:"name"`
	Address    string            `json:"address"`
	Members    map[string][]byte `json:"members"`          // public keys
	Tokens     map[string]string `json:"tokens,omitempty"` // hashes, with the server
}

// Found writes the directory of a new federation: one for the server and one for each client, which its owner takes
// away. The authority's key is thrown away: nobody can join who was not named.
func Found(dir string, f Founding) error {
	host, port, err := net.SplitHostPort(f.Address)
	if err != nil || port == "" || host == "" {
		return fmt.Errorf("address: want host:port, have %q", f.Address)
	}
	if !Name.MatchString(f.ID) {
		return fmt.Errorf("name of the federation: want small letters, digits, - and _, have %q", f.ID)
	}
	if len(f.Clients) == 0 {
		return errors.New("clients: want at least one name")
	}
	seen := map[string]bool{ServerName: true}
	for _, name := range f.Clients {
		if !Name.MatchString(name) || seen[name] {
			return fmt.Errorf("clients: want different names of small letters, digits, - and _, other than %s, have %q", ServerName, name)
		}
		seen[name] = true
	}
	if _, err := os.Stat(dir); err == nil {
		return fmt.Errorf("%s is there already; take another directory", dir)
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return err
	}
	return atomicfile.WriteDir(dir, func(tmp string) error { return f.write(tmp, dir, host) })
}

func (f Founding) write(tmp, dir, host string) error {
	root, rootKey, err := certify(f.ID+" authority", f.Valid, nil, nil, nil)
	if err != nil {
		return err
	}
	names := append([]string{ServerName}, f.Clients...)
	keys, certs := map[string]ed25519.PrivateKey{}, map[string]*x509.Certificate{}
	file := memberFile{Federation: f.ID, Address: f.Address, Members: map[string][]byte{}}
	tokens, hashes := map[string]string{}, map[string]string{}
	for _, name := range names {
		var hosts []string
		if name == ServerName {
			hosts = []string{host, "localhost", "127.0.0.1", "::1"}
		}
		cert, key, err := certify(name, f.Valid, hosts, root, rootKey)
		if err != nil {
			return err
		}
		keys[name], certs[name] = key, cert
		file.Members[name] = key.Public().(ed25519.PublicKey)
		if name == ServerName {
			continue
		}
		token := make([]byte, 32)
		if _, err := rand.Read(token); err != nil {
			return err
		}
		tokens[name] = base64.RawURLEncoding.EncodeToString(token)
		sum := sha256.Sum256([]byte(tokens[name]))
		hashes[name] = hex.EncodeToString(sum[:])
	}
	for _, name := range names {
		own, part := file, filepath.Join("clients", name)
		own.Name = name
		if name == ServerName {
			own.Tokens, part = hashes, ServerName
		}
		to := filepath.Join(tmp, part)
		if err := os.MkdirAll(to, 0o700); err != nil {
			return err
		}
		text, err := json.MarshalIndent(own, "", "  ")
		if err != nil {
			return err
		}
		private, err := x509.MarshalPKCS8PrivateKey(keys[name])
		if err != nil {
			return err
		}
		files := map[string][]byte{
			MemberFile: text, RunFile: f.Run, authority: block("CERTIFICATE", root.Raw), certFile: block("CERTIFICATE", certs[name].Raw), keyFile: block("PRIVATE KEY", private),
		}
		if name == ServerName {
			files[BrokerFile] = []byte(f.broker(filepath.Join(dir, part)))
		} else {
			files[tokenFile] = []byte(tokens[name] + "\n")
		}
		for file, content := range files {
			if err := os.WriteFile(filepath.Join(to, file), content, 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

func block(kind string, b []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b})
}

// certify makes a key and a certificate for it, signed by the parent or by itself.
func certify(name string, valid time.Duration, hosts []string, parent *x509.Certificate, parentKey ed25519.PrivateKey) (*x509.Certificate, ed25519.PrivateKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, err
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(valid),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if len(hosts) > 0 {
		t.ExtKeyUsage = append(t.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if parent == nil {
		t.IsCA, t.KeyUsage, parent, parentKey = true, x509.KeyUsageCertSign, t, private
		t.ExtKeyUsage = nil
	}
	raw, err := x509.CreateCertificate(rand.Reader, t, parent, public, parentKey)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	return cert, private, err
}

// broker is the configuration of the NATS server: certificates are identities, and each has its own subjects.
func (f Founding) broker(dir string) string {
	_, port, _ := net.SplitHostPort(f.Address)
	var b strings.Builder
	fmt.Fprintf(&b, `# NATS server of the federation %s: nats-server -c %s
listen: "0.0.0.0:%s"
server_name: %q
max_payload: 1048576
jetstream { store_dir: %q, sync_interval: always }
tls {
  cert_file: %q
  key_file: %q
  ca_file: %q
  verify_and_map: true
  min_version: "1.3"
  timeout: 5
}
authorization { users: [
  { user: "CN=%s", permissions: { publish: ">", subscribe: ">" } }
`, f.ID, BrokerFile, port, f.ID, filepath.Join(dir, "jetstream"), filepath.Join(dir, certFile), filepath.Join(dir, keyFile), filepath.Join(dir, authority), ServerName)
	for _, name := range f.Clients {
		publish, subscribe := Permissions(f.ID, name)
		fmt.Fprintf(&b, "  { user: \"CN=%s\", permissions: { publish: { allow: [%s] }, subscribe: { allow: [%s] } } }\n", name, quoted(publish), quoted(subscribe))
	}
	b.WriteString("] }\n")
	return b.String()
}

func quoted(texts []string) string {
	var out []string
	for _, t := range texts {
		out = append(out, fmt.Sprintf("%q", t))
	}
	return strings.Join(out, ", ")
}

// Identity is a member's directory, opened.
type Identity struct {
	Dir        string
	Federation string
	Name       string
	Address    string
	Members    Members
	Key        ed25519.PrivateKey
	TLS        *tls.Config
	Token      []byte
	Tokens     map[string][sha256.Size]byte
}

// OpenIdentity reads a member's directory and checks that its parts belong together.
func OpenIdentity(dir string) (*Identity, error) {
	id, err := openIdentity(dir)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; a member's directory is made by: tunesmith federate init", dir, err)
	}
	return id, nil
}

func openIdentity(dir string) (*Identity, error) {
	text, err := os.ReadFile(filepath.Join(dir, MemberFile))
	if err != nil {
		return nil, err
	}
	var m memberFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("%s: %w", MemberFile, err)
	}
	id := &Identity{Dir: dir, Federation: m.Federation, Name: m.Name, Address: m.Address, Members: Members{}, Tokens: map[string][sha256.Size]byte{}}
	for name, key := range m.Members {
		if !Name.MatchString(name) || len(key) != ed25519.PublicKeySize {
			return nil, fmt.Errorf("%s: the key of %q is none", MemberFile, name)
		}
		id.Members[name] = key
	}
	for name, h := range m.Tokens {
		b, err := hex.DecodeString(h)
		if err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%s: the token's hash of %q is none", MemberFile, name)
		}
		id.Tokens[name] = [sha256.Size]byte(b)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certFile), filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	key, ok := pair.PrivateKey.(ed25519.PrivateKey)
	if !ok || !bytes.Equal(key.Public().(ed25519.PublicKey), id.Members[m.Name]) {
		return nil, fmt.Errorf("certificate: its key is not that of the member %q", m.Name)
	}
	id.Key = key
	pool := x509.NewCertPool()
	ca, err := os.ReadFile(filepath.Join(dir, authority))
	if err != nil {
		return nil, err
	}
	if !pool.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", authority)
	}
	id.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS13}
	if m.Name != ServerName {
		token, err := os.ReadFile(filepath.Join(dir, tokenFile))
		if err != nil {
			return nil, err
		}
		id.Token = bytes.TrimSpace(token)
	}
	return id, nil
}

// At returns how the member reaches a NATS server; an empty URL is that of the federation.
func (id *Identity) At(url string) Address {
	if url == "" {
		url = "tls://" + id.Address
	}
	return Address{URL: url, TLS: id.TLS, Federation: id.Federation, Name: id.Name}
}
