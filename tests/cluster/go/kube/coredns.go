package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

// runCoreDNS serves cluster DNS. A directive that is listed without its plugin linked in makes
// CoreDNS refuse to start, so the list (which also fixes the plugins' order) is cut to these.
// There is no cache: a name that does not exist yet would stay away for its negative time to live.
func runCoreDNS() int {
	dnsserver.Directives = []string{"ready", "errors", "kubernetes"}
	coremain.Run()
	return 0
}
