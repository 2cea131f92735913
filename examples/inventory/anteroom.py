#!/usr/bin/env python3
# Shows a dynamic inventory for Ansible: the nodes that you can use now, in groups by their labels.
# Run: ansible-inventory -i anteroom.py --graph; ansible -i anteroom.py env_staging -m ping
"""Ansible inventory of an Anteroom proxy.

ANTEROOM_SSH    how the proxy is reached: a command, `ssh access` if unset; its last word is the host to jump over
ANTEROOM_QUERY  more words for `ls`, such as `env=staging`; nodes that you could ask for are not listed
"""

import collections
import json
import os
import re
import shlex
import subprocess
import sys


def nodes():
    command = shlex.split(os.environ.get("ANTEROOM_SSH", "ssh access"))
    words = ["ls", "--format", "json"] + shlex.split(os.environ.get("ANTEROOM_QUERY", ""))
    answer = subprocess.run(command + words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if answer.returncode != 0:
        sys.exit(f"anteroom inventory: `{shlex.join(command + words)}` ended with status {answer.returncode}")
    return command, json.loads(answer.stdout)


def group(key, value):
    """A group's name has letters, digits and underscores; `env=staging` becomes env_staging."""
    name = re.sub(r"[^A-Za-z0-9_]", "_", f"{key}_{value}")
    return name if not name[0].isdigit() else f"_{name}"


def inventory():
    command, found = nodes()
    named = collections.Counter(node["name"] for node in found)
    hosts, groups = {}, collections.defaultdict(list)
    for node in found:
        # Two nodes may share a name; the UUID always leads to one.
        unique = named[node["name"]] == 1
        host = node["name"] if unique else f"{node['name']}-{node['id']}"
        logins = node.get("logins", [])
        hosts[host] = {
            "ansible_host": node["name"] if unique else node["id"],
            "ansible_port": 22,
            # The options before the last word are those that reach the proxy.
            "ansible_ssh_common_args": "-o ProxyCommand="
            + shlex.quote(shlex.join(command[:1] + ["-W", "%h:%p"] + command[1:])),
            "anteroom_id": node["id"],
            "anteroom_labels": node["labels"],
            "anteroom_logins": logins,
            "anteroom_resource_id": node["resource_id"],
        }
        if len(logins) == 1:
            hosts[host]["ansible_user"] = logins[0]
        for key, value in sorted(node["labels"].items()):
            groups[group(key, value)].append(host)
    result = {name: {"hosts": sorted(members)} for name, members in sorted(groups.items())}
    result["all"] = {"hosts": sorted(hosts), "children": sorted(groups)}
    result["_meta"] = {"hostvars": hosts}
    return result


if __name__ == "__main__":
    # `--host NAME` is asked only where there is no `_meta`.
    answer = {} if "--host" in sys.argv else inventory()
    json.dump(answer, sys.stdout, indent=2, sort_keys=True)
    print()
