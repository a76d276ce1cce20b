# The course in JupyterLab: docker build -t segmentation-course . && docker run --rm -p 8888:8888 segmentation-course
FROM python:3.12-slim
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends make && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home learner
WORKDIR /course
COPY --chown=learner . .
RUN chown learner .
USER learner
RUN make setup EXTRA=cpu PIP_NO_CACHE_DIR=1
EXPOSE 8888
CMD ["make", "lab", "EXTRA=cpu", "LAB_ARGS=--ip 0.0.0.0 --no-browser"]
