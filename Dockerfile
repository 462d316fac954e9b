# The server as an image: no root, no shell user, data in the volume /data.
FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE schema.sql ./
COPY acme_ca ./acme_ca
RUN python -m venv /opt/acme-ca && /opt/acme-ca/bin/pip install --no-cache-dir .

FROM python:3.11-slim
# PostgreSQL's initdb wants a name for the user that it runs as: a number alone does not do.
RUN useradd --system --uid 10001 --user-group --home-dir /data --no-create-home --shell /usr/sbin/nologin acme-ca \
    && install --directory --owner=acme-ca --group=acme-ca --mode=0755 /data
COPY --from=build /opt/acme-ca /opt/acme-ca
ENV PATH=/opt/acme-ca/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    ACME_CA_DATA=/data \
    ACME_CA_HTTPS_LISTEN=0.0.0.0:8443 \
    ACME_CA_HTTP_LISTEN=0.0.0.0:8080
USER acme-ca
WORKDIR /data
VOLUME /data
EXPOSE 8443 8080
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/health', timeout=4)"]
ENTRYPOINT ["acme-ca"]
CMD ["serve"]
