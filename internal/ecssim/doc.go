// Package ecssim is a small working model of Alibaba Cloud ECS behind its OpenAPI gateway, served over HTTP.
//
// It knows DeleteImage and DescribeImages, their documented errors, and the gateway around them: V1 and V3
// signatures with their clock window and nonces, GET and POST, JSON and XML, request IDs, and quotas for each
// account, region and action. Images pass through the states that a deletion meets, by a clock that a test can
// hold, and faults put in on purpose break calls in the ways that networks and gateways do. The endpoints under
// /_sim/ show and change all that while it runs.
//
// It does not know instances, snapshots, image families, tasks, RAM policies or STS: what uses or shares an
// image is a list on the image, a key of an account may do everything there, and an account sees only its own
// images. Like the real gateway for most actions it ignores parameters that it does not know, DryRun among them.
// Where the vendor documents no behaviour, the comment beside the code says what was chosen.
package ecssim
