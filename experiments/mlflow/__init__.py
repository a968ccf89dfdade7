"""MLflow: runs, versions, approvals and the audit trail. The only package that imports mlflow."""
