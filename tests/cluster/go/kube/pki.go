package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// authority signs the certificates of one cluster.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// runPKI writes ca, apiserver and service-account keys and one client certificate per name:
//
//	cluster-pki DIR IP,IP,... NAME=USER[/GROUP] ...
func runPKI() int {
	if err := writePKI(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cluster-pki:", err)
		return 1
	}
	return 0
}

func writePKI(args []string) error {
	if len(args) < 2 {
		return fmt.Errorf("usage: cluster-pki DIR IP,IP,... NAME=USER[/GROUP] ...")
	}
	ca, err := newAuthority(args[0])
	if err != nil {
		return err
	}
	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
	}
	for _, ip := range strings.Split(args[1], ",") {
		server.IPAddresses = append(server.IPAddresses, net.ParseIP(ip))
	}
	if err := ca.issue("apiserver", server); err != nil {
		return err
	}
	for _, client := range args[2:] {
		name, subject, _ := strings.Cut(client, "=")
		user, group, grouped := strings.Cut(subject, "/")
		template := &x509.Certificate{
			Subject:     pkix.Name{CommonName: user},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}
		if grouped {
			template.Subject.Organization = []string{group}
		}
		if err := ca.issue(name, template); err != nil {
			return err
		}
	}
	// Service account tokens are signed with a key of their own; it needs no certificate.
	_, err = ca.newKey("service-account")
	return err
}

func newAuthority(dir string) (*authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca := &authority{dir: dir}
	key, err := ca.newKey("ca")
	if err != nil {
		return nil, err
	}
	ca.key = key
	ca.cert = &x509.Certificate{
		Subject:               pkix.Name{CommonName: "cluster-ca"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	return ca, ca.sign("ca", ca.cert, key.Public())
}

// issue makes NAME.key and NAME.crt.
func (ca *authority) issue(name string, template *x509.Certificate) error {
	key, err := ca.newKey(name)
	if err != nil {
		return err
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	return ca.sign(name, template, key.Public())
}

func (ca *authority) newKey(name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(filepath.Join(ca.dir, name+".key"), "EC PRIVATE KEY", der)
}

// sign makes NAME.crt, valid from an hour ago (clocks differ) for thirty days.
func (ca *authority) sign(name string, template *x509.Certificate, public crypto.PublicKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(30 * 24 * time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, public, ca.key)
	if err != nil {
		return err
	}
	return writePEM(filepath.Join(ca.dir, name+".crt"), "CERTIFICATE", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
