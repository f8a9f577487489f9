package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

const provisionerName = "vlft.dev/folder"

// folders provisions volumes as folders of one machine. The nodes of the cluster are namespaces
// of that machine and see the same folder, so a volume may be shared and has no node affinity.
type folders struct{ root string }

// runProvisioner serves the storage classes of provisionerName until SIGTERM.
func runProvisioner() int {
	kubeconfig := flag.String("kubeconfig", "", "how to reach the API server")
	root := flag.String("root", "", "folder below which each volume gets its own")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		fmt.Fprintln(os.Stderr, "volume-provisioner:", err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	client := kubernetes.NewForConfigOrDie(config)
	controller.NewProvisionController(klog.NewContext(ctx, klog.Background()), client, provisionerName,
		folders{*root}, controller.LeaderElection(false)).Run(ctx)
	return 0
}

// Provision makes the folder. fsGroup does not reach a hostPath volume, so everyone may write.
// A class with `medium: Memory` gets a tmpfs of the claim's size: a volume that can be full.
func (f folders) Provision(_ context.Context, options controller.ProvisionOptions) (*core.PersistentVolume, controller.ProvisioningState, error) {
	path := filepath.Join(f.root, options.PVC.Namespace+"_"+options.PVC.Name+"_"+options.PVName)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	size := options.PVC.Spec.Resources.Requests[core.ResourceStorage]
	if options.StorageClass.Parameters["medium"] == "Memory" {
		limit := fmt.Sprintf("size=%d,mode=0777", size.Value())
		if err := syscall.Mount("tmpfs", path, "tmpfs", 0, limit); err != nil {
			return nil, controller.ProvisioningFinished, err
		}
	}
	// MkdirAll's mode passed through the umask.
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   options.PVC.Spec.AccessModes,
			Capacity:                      core.ResourceList{core.ResourceStorage: size},
			PersistentVolumeSource: core.PersistentVolumeSource{
				HostPath: &core.HostPathVolumeSource{Path: path},
			},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

// Delete removes the folder of a released volume, unmounting what Provision mounted there.
func (f folders) Delete(_ context.Context, volume *core.PersistentVolume) error {
	path := volume.Spec.HostPath.Path
	if filepath.Dir(path) != filepath.Clean(f.root) {
		return fmt.Errorf("volume %s lies at %s, outside of %s", volume.Name, path, f.root)
	}
	if err := syscall.Unmount(path, syscall.MNT_DETACH); err != nil && err != syscall.EINVAL && err != syscall.ENOENT {
		return err
	}
	return os.RemoveAll(path)
}
