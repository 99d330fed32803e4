"""Kyverno: pods may name the mirror's images only, by digest, signed and with an approving verdict.

Source: Kyverno, ClusterPolicy: validate (foreach), verifyImages (attestors, attestations), images
as `images.*` variables.
"""

from __future__ import annotations

from registry.devcheck.clients.mirror import File, Mirror, indented

TITLE = "Kyverno 1.11 and newer (ClusterPolicy)"
ENFORCES = (
    "pods and what makes pods are refused when any container, init or ephemeral, names another registry",
    "tags become digests; the builder's signature and the verdict's approval must be there",
    "when Kyverno cannot tell, the pod is refused (failurePolicy: Fail)",
)
CANNOT = (
    "what runs already, static pods, and namespaces that Kyverno leaves out (kube-system) are not looked at",
    "a verification that went well is kept for an hour: a withdrawal in that time is the mirror's to refuse",
    "the verdict's expiry is not compared: the mirror does that at each pull",
)
_LISTS = ("containers", "initContainers", "ephemeralContainers")
_VERDICT = "https://goldsmith.dev/attestations/verdict/v1"

_POLICY = """apiVersion: kyverno.io/v1
kind: ClusterPolicy
metadata:
  name: only-the-mirror
spec:
  validationFailureAction: Enforce
  failurePolicy: Fail
  background: true
  webhookTimeoutSeconds: 30
  rules:
    - name: registry
      match:
        any:
          - resources:
              kinds: [Pod]
      validate:
        message: "images come from {host}; `goldsmith check` names the one to write instead"
        pattern:
          spec:
{pattern}
    - name: signature-and-verdict
      match:
        any:
          - resources:
              kinds: [Pod]
      verifyImages:
        - imageReferences: ["{host}/*"]
          type: Cosign
          required: true
          mutateDigest: true
          verifyDigest: true
          attestors:
            - count: 1
              entries:
                - keys:
                    publicKeys: |-
{builder}
                    rekor:
                      ignoreTlog: true
                    ctlog:
                      ignoreSCT: true
          attestations:
            - type: {kind}
              attestors:
                - count: 1
                  entries:
                    - keys:
                        publicKeys: |-
{verdict}
                        rekor:
                          ignoreTlog: true
                        ctlog:
                          ignoreSCT: true
              conditions:
                - all:
                    - key: "{{{{ approved }}}}"
                      operator: Equals
                      value: true
"""


def files(mirror: Mirror) -> tuple[File, ...]:
    """One policy with two rules."""
    pattern = "\n".join(
        f"            {'' if name == 'containers' else '=('}{name}{'' if name == 'containers' else ')'}:\n"
        f'              - image: "{mirror.host}/*"'
        for name in _LISTS
    )
    text = _POLICY.format(
        host=mirror.host,
        pattern=pattern,
        builder=indented(mirror.builder_key, 22),
        verdict=indented(mirror.verdict_key, 26),
        kind=_VERDICT,
    )
    return (File("kubectl apply -f kyverno.yaml", text),)
