"""Pushes by requests."""

import json
import sys
import time

import requests

given = json.load(sys.stdin)
session = requests.Session()
for push in given["pushes"]:
    time.sleep(push["pause_seconds"])
    post = session.post if given["kept"] else requests.post
    try:
        answer = post(push["url"], data=push["fields"], verify=given["ca"] or True, timeout=60)
    except requests.RequestException as error:
        print("failed", error, flush=True)
    else:
        print(answer.status_code, answer.headers.get("X-Push-Id", "-"), flush=True)
