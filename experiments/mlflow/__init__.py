"""MLflow: runs, registered versions, approvals and the audit trail. The only package that imports mlflow; what MLflow
cannot do or say becomes RemoteError here.
"""
