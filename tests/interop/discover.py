"""PyJWT as any verifier of OpenID Connect uses it: it knows the issuer's URL, finds the keys by the
discovery document, and validates a token by them."""

import json
import ssl
import sys
import urllib.request

import jwt

issuer, authority, token, audience = sys.argv[1:5]
tls = ssl.create_default_context(cafile=authority)
with urllib.request.urlopen(f"{issuer}/.well-known/openid-configuration", context=tls) as answer:
    metadata = json.load(answer)
assert metadata["issuer"] == issuer, metadata
keys = jwt.PyJWKClient(metadata["jwks_uri"], ssl_context=tls)
key = keys.get_signing_key_from_jwt(token)
algorithms = metadata["id_token_signing_alg_values_supported"]
claims = jwt.decode(token, key.key, algorithms=algorithms, audience=audience, issuer=issuer,
                    options={"require": ["iss", "sub", "aud", "exp", "iat"]})
print("valid for", claims["sub"])
for wrong in ({"audience": "somebody else", "issuer": issuer},
              {"audience": audience, "issuer": "https://other.test"}):
    try:
        jwt.decode(token, key.key, algorithms=algorithms, **wrong)
    except jwt.InvalidTokenError as refusal:
        print("refused:", type(refusal).__name__)
