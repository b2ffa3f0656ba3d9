"""Images that are known to hold no server of applications: databases, queues, proxies. Pure."""

from __future__ import annotations

from typing import Final

_NAMES: Final = """
adminer agent alertmanager amazon-ecs-agent aws-for-fluent-bit aws-otel-collector aws-xray-daemon caddy cassandra chroma
clickhouse clickhouse-server cloud-sql-proxy cloudsql-proxy cockroach consul coredns couchdb datadog-agent dragonfly
elasticmq elasticsearch envoy etcd fluent-bit fluentd grafana haproxy influxdb jaeger kafka kibana localstack logstash
loki mailhog mailpit mariadb meilisearch memcached minio mongo mongodb mosquitto mssql mysql nats neo4j nginx opensearch
opentelemetry-collector opentelemetry-collector-contrib otel-collector pgadmin4 pgbouncer pgvector postgis postgres
postgresql prometheus qdrant rabbitmq redis redis-stack redpanda registry squid timescaledb traefik typesense valkey
vault weaviate zookeeper
"""
_INFRASTRUCTURE: Final = frozenset(_NAMES.split())


def is_infrastructure(image: str) -> bool:
    """Whether an image (``registry/path/name:tag@digest``) is one of those, by the last part of its name."""
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0].lower()
    return name in _INFRASTRUCTURE
