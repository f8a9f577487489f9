package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// runWait ends when the API server is ready and, if asked, as many nodes are Ready. One process
// that asks often costs less than a kubectl for each question.
//
//	cluster-wait --kubeconfig FILE [--nodes N] [--timeout DURATION]
func runWait() int {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	nodes := flag.Int("nodes", 0, "how many nodes must be Ready")
	timeout := flag.Duration("timeout", 2*time.Minute, "when to give up")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cluster-wait:", err)
		return 1
	}
	config.QPS = -1
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	client := kubernetes.NewForConfigOrDie(config)
	for {
		err := ready(ctx, client, *nodes)
		if err == nil {
			return 0
		}
		select {
		case <-ctx.Done():
			fmt.Fprintf(os.Stderr, "cluster-wait: not within %s: %v\n", *timeout, err)
			return 1
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// ready says what is still missing.
func ready(ctx context.Context, client kubernetes.Interface, nodes int) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error(); err != nil {
		return err
	}
	if nodes == 0 {
		return nil
	}
	list, err := client.CoreV1().Nodes().List(ctx, meta.ListOptions{})
	if err != nil {
		return err
	}
	count := 0
	for _, node := range list.Items {
		for _, condition := range node.Status.Conditions {
			if condition.Type == core.NodeReady && condition.Status == core.ConditionTrue {
				count++
			}
		}
	}
	if count < nodes {
		return fmt.Errorf("%d of %d nodes are Ready", count, nodes)
	}
	// Pods are refused until their namespace has it.
	_, err = client.CoreV1().ServiceAccounts("default").Get(ctx, "default", meta.GetOptions{})
	return err
}
