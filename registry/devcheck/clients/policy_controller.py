"""Sigstore policy-controller: an image without a matching policy is denied, the mirror's need signatures.

Source: policy-controller, ClusterImagePolicy v1beta1 (authorities, attestations, static) and the
config map `config-policy-controller` (`no-match-policy`).
"""

from __future__ import annotations

from collections.abc import Iterator

from registry.devcheck.clients.mirror import File, Mirror, indented, single_keys

TITLE = "Sigstore policy-controller"
ENFORCES = (
    "in labelled namespaces every image needs a policy that matches, and only the mirror's have one",
    "the builder's signature, and an approving verdict by the verdict's key, must both be there",
)
CANNOT = (
    "only namespaces with the label policy.sigstore.dev/include=true are looked at: label all of them",
    "no-match-policy is for the whole cluster: other policies of yours have to match what they allow",
    "the verdict's expiry is not compared: the mirror does that at each pull",
    "it reads the signatures and attestations under tags (.sig, .att); keep them when images are copied",
)
_VERDICT = "https://goldsmith.dev/attestations/verdict/v1"
_APPROVED = f"""
      attestations:
        - name: approved
          predicateType: {_VERDICT}
          policy:
            type: cue
            data: |
              predicate: approved: true"""


def files(mirror: Mirror) -> tuple[File, ...]:
    """The config map and two policies; an image has to satisfy both, each by one of its authorities."""
    builders = "\n".join(_authorities("builder", mirror.builder_key))
    verdicts = "\n".join(one + _APPROVED for one in _authorities("verdict", mirror.verdict_key))
    text = f"""apiVersion: v1
kind: ConfigMap
metadata:
  name: config-policy-controller
  namespace: cosign-system
data:
  no-match-policy: deny
---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: mirror-signature
spec:
  mode: enforce
  images:
    - glob: "{mirror.host}/**"
  authorities:
{builders}
---
apiVersion: policy.sigstore.dev/v1beta1
kind: ClusterImagePolicy
metadata:
  name: mirror-verdict
spec:
  mode: enforce
  images:
    - glob: "{mirror.host}/**"
  authorities:
{verdicts}
"""
    return (File("kubectl apply -f policy-controller.yaml", text),)


def _authorities(role: str, pems: str) -> Iterator[str]:
    """One authority a key; the image needs what one of them accepts."""
    for number, pem in enumerate(single_keys(pems), 1):
        name = role if number == 1 else f"{role}-{number}"
        head = f"    - name: {name}\n      key:\n        hashAlgorithm: sha256\n        data: |\n"
        yield head + indented(pem, 10)
