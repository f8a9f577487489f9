// Command kube holds every component of a Kubernetes cluster and picks one by the name it is
// called by (argv[0]): one link step and one shared set of packages instead of eight.
package main

import (
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	name := filepath.Base(os.Args[0])
	run, known := components[name]
	if !known {
		fmt.Fprintf(os.Stderr, "%s: call this through a link named like one of its components: %v\n", name, names())
		os.Exit(2)
	}
	os.Exit(run())
}
