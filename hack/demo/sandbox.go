package main

import (
	"context"
	"fmt"
	"path/filepath"
)

const sandboxText = `
In another terminal:

  export KUBECONFIG=%[1]s/kubeconfig PATH=%[2]s:$PATH
  kubectl apply -f %[1]s                   # an object for each image
  kubectl get cimg -w                      # leave it running
  kubectl delete cimg web-1                # goes at once
  kubectl delete cimg web-2 --wait=false   # does not: read why, and what to do
  kubectl get cimg web-2 -o wide
  kubectl describe cimg web-2

Clear the obstacle in ECS, or force the deletion:

  curl -X PUT %[3]s/_sim/images/m-bp1web0002 -d '{"imageID":"m-bp1web0002","regionID":"cn-hangzhou"}'
  kubectl patch cimg web-2 --type=merge -p '{"spec":{"force":true}}'

Try again at once, instead of when the next attempt is due, or let an object go and leave its image:

  kubectl annotate cimg web-4 --overwrite ecs.imagegc.io/retry-at="$(date)"
  kubectl annotate cimg web-4 ecs.imagegc.io/release=m-bp1web0004

What ECS has and was asked, and a fault put in on purpose:

  curl %[3]s/_sim/state
  curl -X POST %[3]s/_sim/faults -d '{"action":"DeleteImage","kind":"garbage","times":3}'

The operator's log is %[1]s/manager.log. Ctrl-C ends all this and leaves nothing behind.
`

// stay has the images of all scenes in ECS at once, tells what to try, and waits to be stopped.
func (s *stage) stay(ctx context.Context) error {
	for _, c := range scenes {
		if err := s.writeManifest(c.name, c.imageID(), c.spec); err != nil {
			return err
		}
		if c.image.ImageID == "" {
			continue
		}
		c.image.RegionID = region
		if err := s.sim.PutImage(c.image); err != nil {
			return err
		}
	}
	assets := filepath.Dir(s.cluster.ControlPlane.KubectlPath)
	fmt.Printf(sandboxText, s.dir, assets, s.simURL)
	select {
	case <-ctx.Done():
		fmt.Println("\nStopping.")
		return nil
	case err := <-s.managerEnd:
		s.managerEnd <- err
		return fmt.Errorf("the operator ended by itself")
	}
}
